"""Random mixers as the layers of a stack: each depth feeds one of their inputs with what the depths below give."""

from __future__ import annotations

import re

from hypothesis import strategies as st

from seqdsl.verify.strategies import mixer_texts

DEPTH = 2


@st.composite
def stack_texts(draw: st.DrawFn) -> str:
    """A random mixer, and one named `deep` that is a stack of it over the depth `l`, the other inputs shared or not."""
    text = draw(mixer_texts(parts=2).filter(lambda text: bool(_feeds(text))))
    (output, axes), (fed, own) = draw(st.sampled_from(_feeds(text)))
    inputs, outputs = _header(text)
    given, passed = [], []
    for name, indices, kind in inputs:
        deep = name != fed and indices[:1] == ["t"] and draw(st.booleans())  # one for each depth
        if name != fed:
            given.append(f"{name}[{','.join((['l'] if deep else []) + indices)}]{kind}" if indices else name)
        passed.append("f" if name == fed else name)
    over = ",".join(axes)
    summed = [a for a in axes if a not in own]
    below = f"sum[{','.join(summed)}] z[l-1]" if summed else "z[l-1]"
    lines = [
        *(["index m over n"] if "index m over n" in text else []),
        f"z[-1,{over}] = z0",
        f"f[l,{','.join(own)}] = tanh({below})",
        f"{', '.join('p' + name for name, _, _ in outputs)} = drawn({', '.join(passed)})",
        f"z[l: {DEPTH},{over}] = z[l-1] / 2 + p{output} / 4",
        f"y[{over}] = z[{DEPTH - 1}]",
    ]
    head = f"mixer deep({', '.join([*given, f'z0[{over}]'])}) -> y[{over}]:"
    return text + "\n" + head + "\n" + "".join(f"    {line}\n" for line in lines)


def _header(text: str) -> tuple[list[tuple[str, list[str], str]], list[tuple[str, list[str], str]]]:
    """(name, indices, kind) of the inputs and of the outputs."""
    head = re.search(r"mixer drawn\((.*)\) -> (.*):\n", text)
    assert head is not None
    sides = []
    for side in head.groups():
        found = re.findall(r"(\w+)(?:\[([\w,]*)\])?(: \w+)?(?:, |$)", side)
        sides.append([(name, indices.split(",") if indices else [], kind) for name, indices, kind in found])
    return sides[0], sides[1]


def _feeds(text: str) -> list[tuple[tuple[str, list[str]], tuple[str, list[str]]]]:
    """The outputs, and the real inputs over no more axes than these."""
    inputs, outputs = _header(text)
    return [
        ((output, axes), (name, own))
        for output, axes, _ in outputs
        for name, own, kind in inputs
        if not kind and own[:1] == ["t"] and set(own) <= set(axes)
    ]
