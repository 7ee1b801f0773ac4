"""Hypothesis strategies for whole mixers: well-typed `.seq` texts of every kind that the compiler has a form for.

    from hypothesis import given
    from seqdsl.verify.strategies import mixer_texts

    @given(mixer_texts())
    def test_mine(text): ...                  # a mixer named `drawn`; seqdsl.load(text) takes it

A text has one to three parts: recurrences over any axes (entrywise, with inner reads written back, coupled, dense,
semiring, nonlinear, over two axes, in micro-steps, reverse or both ways), normalisers, masked sums and convolutions. A
later part may take what an earlier one gives. Texts are drawn, not systems: parser, checker, lowering and printers are
exercised too. Values stay moderate for standard normal inputs and a dozen positions.

Entry points: `mixer_texts`, of all `KINDS` or of some; `cases`, lengths and seeds for the inputs of any mixer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from hypothesis import strategies as st

from seqdsl.verify.case import LENGTHS, Case

T = TypeVar("T")
AXES = ("h", "d", "e")


@dataclass
class Writer:
    """A text in the making: inputs, declarations and equations, and what a later part may read."""

    draw: st.DrawFn
    inputs: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    made: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    count: int = 0

    def choose(self, *values: T) -> T:
        """One of these; the first ones are what a failure shrinks to."""
        return self.draw(st.sampled_from(values))

    def maybe(self) -> bool:
        """Once in a while."""
        return self.choose(False, False, False, True)

    def subset(self, axes: Sequence[str]) -> tuple[str, ...]:
        """Some of the axes, in their order."""
        return tuple(a for a in axes if self.choose(True, True, False))

    def fresh(self, prefix: str) -> str:
        """A name that nothing else has."""
        self.count += 1
        return f"{prefix}{self.count}"

    def input(self, prefix: str, axes: Sequence[str], dtype: str = "") -> str:
        """A new input over these axes."""
        name = self.fresh(prefix)
        self.inputs.append(f"{name}[{','.join(axes)}]{f': {dtype}' if dtype else ''}" if axes else name)
        return name

    def say(self, text: str) -> None:
        """One more equation."""
        self.lines.append(text)

    def declare(self, text: str) -> None:
        """One more declaration, said once."""
        if text not in self.heads:
            self.heads.append(text)

    def give(self, name: str, axes: Sequence[str]) -> None:
        """An output over `t` and these axes, which later parts may read."""
        self.outputs.append(f"{name}[{','.join(('t', *axes))}]")
        self.made.append((name, tuple(axes)))

    def value(self, axes: Sequence[str]) -> str:
        """Something over `t` and at most these axes: an input, or what an earlier part gives."""
        if (known := [name for name, own in self.made if set(own) <= set(axes)]) and self.maybe():
            return f"tanh({self.choose(*known)})"
        name = self.input("x", ("t", *axes))
        earlier = self.choose("{0}[t-1]", "{0}[t // 4 * 4]", "{0}[t-3]")
        shape = self.choose("{0}", "{0}", "{0}", earlier, "(1 + {0}[t-1] - {0})", "where({1}, {0}, 0)")
        return shape.format(name, self.input("m", ("t",), "bool") if "{1}" in shape else "")

    def text(self) -> str:
        """The whole mixer. An axis that no input has gets its length from one that is read nowhere."""
        given = {axis for text in self.inputs for axis in re.findall(r"\w+", text.partition("[")[2].partition("]")[0])}
        used = {axis for line in self.lines for axis in re.findall(r"\b[hdenj]\b", line)}
        self.inputs += [f"{axis}s[{axis}]" for axis in sorted(used - given - {"m"})]
        body = "".join(f"    {line}\n" for line in (*self.heads, *self.lines))
        return f"mixer drawn({', '.join(self.inputs)}) -> {', '.join(self.outputs)}:\n{body}"


def decay(w: Writer, axes: Sequence[str]) -> str:
    """A coefficient of a state over `axes`: on any subset of them, in log space or raw, constant, with resets."""
    kind = w.choose(
        "one", "exp", "exp", "sigmoid", "number", "sum", "raw", "where", "index", "fixed", "step", "negative"
    )
    if kind == "one":
        return "1"
    if kind == "number":
        return w.choose("0.5", "0.9", "exp(-0.25)", "(-0.7)", "0", "1.25")
    own = w.subset(axes)
    if kind == "index":
        return w.choose("exp(-t / 4)", "(t % 3 / 3)", "where(t % 3 == 1, 0, 0.8)")
    if kind == "sum":
        return f"exp({w.input('g', ('t', *own))} + {w.input('g', ('t', *w.subset(axes)))})"
    if kind == "where":
        flag = w.input("m", ("t",), "bool")
        return f"where({flag}, {w.choose('0', '1')}, exp({w.input('g', ('t', *own))}))"
    if kind == "fixed":
        return w.choose("exp({0})", "sigmoid({0})").format(w.input("g", own))
    if kind == "step":
        return f"exp(-exp({w.input('a', own)}) * softplus({w.input('g', ('t', *w.subset(axes)))}))"
    name = w.input("g", ("t", *own))
    return {"exp": f"exp({name})", "sigmoid": f"sigmoid({name})", "raw": name, "negative": f"(-exp({name}))"}[kind]


def write(w: Writer, axes: Sequence[str]) -> str:
    """What is added to a state over `axes`: a product of one to three values, or a sum of such over ranks."""
    kind = w.choose("outer", "outer", "full", "ranks", "partial", "difference")
    left, right = [a for a in axes if a != "e"], [a for a in axes if a != "d"]
    if kind == "outer":
        return f"{w.value(left)} * {w.value(right)}"
    if kind == "full":
        return w.value(axes)
    if kind == "partial":
        return w.value(w.subset(axes))
    if kind == "difference":
        return f"0.5 * {w.value(left)} * ({w.value(right)} - {w.value(w.subset(right))})"
    return f"(sum[j] {w.input('k', ('t', 'j', *left))} * {w.input('v', ('t', 'j', *right))})"


def base_case(w: Writer, name: str, axes: Sequence[str], at: str = "-1") -> None:
    """A start: a number, an input, or a parameter; most often none."""
    kind = w.choose("none", "none", "none", "number", "input", "param")
    place = f"{name}[{','.join((at, *axes))}]"
    if kind == "number":
        w.say(f"{place} = {w.choose('1', '-0.5')}")
    elif kind == "input":
        w.say(f"{place} = {w.input('z', axes)}")
    elif kind == "param" and axes:
        start = w.fresh("start")
        w.declare(f"param {start}[{','.join(axes)}] = normal(0, 1)")
        w.say(f"{place} = {start}")


def read_out(w: Writer, states: Sequence[str], axes: Sequence[str], back: str) -> None:
    """An output that reads the states, now or before the update, whole or summed over rows."""
    over = [a for a in ("d",) if a in axes] if w.choose(True, True, False) else list(w.subset(axes))
    left = [a for a in axes if a not in over]
    earlier = (back, back, "[t-2]", "[t // 3 * 3 - 1]", "[t // 3 * 3 - 2]", "[t // 2 * 2]") if back == "[t-1]" else (back,)
    inner = " + ".join(places := [w.choose(s, s, s + w.choose(*earlier)) for s in states])
    inner = f"({inner})" if len(places) > 1 else inner
    if w.maybe():
        inner = w.choose("{0} ^ 2", "tanh({0})", "({0} - {1})").format(inner, w.value(w.subset(axes)))
    name = w.fresh("o")
    query = w.choose(True, True, False)
    factor = f"{w.value([a for a in axes if a in over or w.choose(True, False)])} * " if query else ""
    total = f"sum[{','.join(over)}] " if over else ""
    w.say(f"{name}[{','.join(('t', *left))}] = {total}{factor}{inner}")
    w.give(name, left)


def entrywise(w: Writer) -> None:
    """One to three recurrences without inner reads; two or three may be coupled entry by entry, or read two steps back."""
    axes, back = w.subset(AXES), w.choose("[t-1]", "[t-1]", "[t-1]", "[t+1]")
    names = [w.fresh("S") for _ in range(w.choose(1, 1, 2, 3))]
    coupled = len(names) > 1 and w.maybe()
    for n, name in enumerate(names):
        base_case(w, name, axes, "-1" if back == "[t-1]" else "|t|")
        terms = [f"{decay(w, axes)} * {name}{back}"]
        if coupled:
            terms.append(f"0.4 * {decay(w, axes)} * {names[n - 1]}{back}")
        if w.maybe() and back == "[t-1]":
            terms.append(f"0.3 * {name}[t-2]")
        if n and not coupled and w.maybe():
            terms.append(f"0.3 * {names[n - 1]}")
        w.say(f"{name}[{','.join(('t', *axes))}] = {' + '.join(terms)} + {write(w, axes)}")
    read_out(w, names, axes, back)


def inner_reads(w: Writer) -> None:
    """States contracted over their rows and written back: before or after the decay, several, of ranks, of each other."""
    axes = (*(a for a in ("h",) if w.maybe()), "d", *(a for a in ("e",) if w.choose(True, True, False)))
    rest = [a for a in axes if a != "d"]
    names = [w.fresh("S") for _ in range(w.choose(1, 1, 1, 2))]
    for n, name in enumerate(names):
        base_case(w, name, axes)
        factor = decay(w, axes)
        terms = []
        for _ in range(w.choose(1, 1, 2)):
            source = names[n - 1] if w.maybe() else name
            terms.append(_correction(w, source, axes, rest, factor))
        w.say(f"{name}[{','.join(('t', *axes))}] = {factor} * {name}[t-1] {' '.join(terms)}")
    read_out(w, names, axes, "[t-1]")


def _correction(w: Writer, source: str, axes: Sequence[str], rest: Sequence[str], factor: str) -> str:
    """One inner read and what is written with it."""
    left, answer = [a for a in axes if a != "e"], w.fresh("r")
    rank = ("j",) if w.maybe() else ()
    inner = w.choose(f"{source}[t-1]", f"{source}[t-1]", f"({factor} * {source}[t-1])")
    if factor == "0":
        inner = f"{source}[t-1]"  # a product with 0 is folded, and then the sum has no index
    key = w.input("k", ("t", *rank, *left))
    w.say(f"{answer}[{','.join(('t', *rank, *rest))}] = sum[d] {key} * {inner}")
    other = w.choose(key, w.input("u", ("t", *rank, *left)))
    shape = w.choose("+ {s}0.3 * {u} * ({v} - {r})", "- {s}0.2 * {u} * {r}", "- {s}0.2 * {u} * {r} + {w}")
    value = w.input("v", ("t", *rank, *rest)) if "{v}" in shape else ""
    more = write(w, axes) if "{w}" in shape else ""
    total = "sum[j] " if rank else ""
    return shape.format(s=total, u=other, v=value, r=answer, w=more)


def dense(w: Writer) -> None:
    """A matrix on a small axis, fixed or one for each position."""
    w.declare("index m over n")
    name, lead = w.fresh("S"), tuple(a for a in ("h",) if w.maybe())
    back = w.choose("t-1", "t-1", "t+1")
    matrix = w.input("A", (*(("t",) if w.choose(True, False) else ()), *w.choose(("n", "m"), ("m", "n"))))
    axes = (*lead, "n")
    base_case(w, name, axes, "-1" if back == "t-1" else "|t|")
    step = f"sum[m] {matrix} * {name}[{','.join((back, *lead, 'm'))}]"
    w.say(f"{name}[{','.join(('t', *axes))}] = 0.4 * {step} + {w.value(axes)}")
    out = w.fresh("o")
    w.say(f"{out}[{','.join(('t', *axes))}] = {w.value(('n',))} * {name}")
    w.give(out, axes)


def semiring(w: Writer) -> None:
    """Running maxima, log-sum-exp states, reachability, best paths."""
    axes, name = w.subset(("h", "d")), w.fresh("M")
    back = w.choose("[t-1]", "[t-1]", "[t+1]")
    own = f"{name}[{','.join(('t', *axes))}]"
    kind = w.choose("max", "min", "logaddexp", "or", "path", "max times")
    out = w.fresh("o")
    if kind == "or":
        a, b = w.input("a", ("t", *axes), "bool"), w.input("b", ("t", *w.subset(axes)), "bool")
        w.say(f"{own} = {a} and {name}{back} or {b}")
        w.say(f"{out}[{','.join(('t', *axes))}] = where({name}, {w.value(axes)}, 0)")
    elif kind == "path":
        w.declare("index m over n")
        cost = w.input("c", (*(("t",) if w.maybe() else ()), "n", "m"))
        w.say(f"{name}[-1,n] = {w.choose('0', '0', w.input('z', ('n',)))}")
        w.say(f"{name}[t,n] = {w.choose('max', 'min', 'logsumexp')}[m]({name}[t-1,m] + {cost}) + {w.value(('n',))}")
        w.say(f"{out}[t,n] = {name}")
        axes = ("n",)
    else:
        if w.choose(True, False):
            start = {"max": "-inf", "min": "inf", "logaddexp": "-inf", "max times": "0"}[kind]
            w.say(f"{name}[{','.join(('-1' if back == '[t-1]' else '|t|', *axes))}] = {start}")
        x, g = w.value(axes), w.input("g", ("t", *w.subset(axes)))
        step = f"sigmoid({g}) * {name}{back}" if kind == "max times" else f"{name}{back} {w.choose('+', '-')} {g}"
        w.say(f"{own} = {'max' if kind == 'max times' else kind}({step}, {x})")
        w.say(f"{out}[{','.join(('t', *axes))}] = {name}")
    w.give(out, axes)


def nonlinear(w: Writer) -> None:
    """A step that is not affine in the state: gates, a matrix or a sum of all entries inside tanh, a hard threshold."""
    kind, name = w.choose("gate", "matrix", "reset", "sum"), w.fresh("H")
    axes: tuple[str, ...] = ("n",) if kind in ("matrix", "sum") else w.subset(("h", "d"))
    own = f"{name}[{','.join(('t', *axes))}]"
    base_case(w, name, axes)
    x, g = w.value(axes), w.value(w.subset(axes))
    if kind == "gate":
        gated = f"sigmoid({g}) * {name}[t-1] + 0.5 * tanh({x} - {name}[t-1])"
        w.say(f"{own} = {w.choose(gated, f'tanh({g} * {name}[t-1]) * cos({name}[t-1]) + {x}')}")
    elif kind == "sum":
        w.say(f"{own} = tanh({g} * (sum[n] {w.input('u', ('n',))} * {name}[t-1]) + 0.5 * {name}[t-1]) + {x}")
    elif kind == "reset":
        w.say(f"{own} = 0.9 * {name}[t-1] * (1 - step({name}[t-1] - 1)) + {x}")
    else:
        w.declare("index m over n")
        w.say(f"{own} = tanh((sum[m] {w.input('W', ('n', 'm'))} * {name}[t-1,m]) + {x})")
    out = w.fresh("o")
    w.say(f"{out}[{','.join(('t', *axes))}] = {w.choose(name, name + '[t-1]')} + {w.value(w.subset(axes))}")
    w.give(out, axes)


def grid(w: Writer) -> None:
    """A recurrence over two axes, each up or down: reads of neighbours, further ones, or ahead along the second axis."""
    axes, name, t, j = w.subset(("d",)), w.fresh("Y"), w.choose("-", "-", "+"), w.choose("-", "-", "+")
    own = ",".join(("t", "j", *axes))
    one = w.choose(f"[t{t}1]", f"[t{t}1]", f"[t{t}2]", f"[t{t}1,j{'+' if j == '-' else '-'}1]")
    two = w.choose(f"[t,j{j}1]", f"[t,j{j}1]", f"[t{t}1,j{j}1]", f"[t,j{j}2]")
    a, b = (w.choose(f"sigmoid({w.input('a', ('t', 'j', *w.subset(axes)))})", "0.5", "0.3") for _ in "ab")
    first, second = ("-1" if sign == "-" else f"|{axis}|" for axis, sign in (("t", t), ("j", j)))
    for place, value in (((first, "j", *axes), w.choose("1", "j / 4")), (("t", second, *axes), w.choose("-1", "t / 9"))):
        if w.maybe():
            w.say(f"{name}[{','.join(place)}] = {value}")
    step = w.choose("{a} * {x} + {b} * {y}", "tanh({a} * {x}) + {b} * {y}", "max({x} - {a}, {y} * {b})")
    text, out = step.format(a=a, b=b, x=f"{name}{one}", y=f"{name}{two}"), w.fresh("o")
    w.say(f"{name}[{own}] = {text} + {w.input('x', own.split(','))}")
    w.say(f"{out}[{own}] = {name}")
    w.give(out, ("j", *axes))


def micro_steps(w: Writer) -> None:
    """Several steps of the state for each position."""
    axes: tuple[str, ...] = (*(a for a in ("h",) if w.maybe()), "d", "e")
    name, ends = w.fresh("S"), ",".join(axes)
    w.say(f"{name}[t,-1,{ends}] = {name}[t-1, |j|-1]")
    factor = w.choose("1", f"exp({w.input('g', ('t', 'j', *w.subset(axes)))})", "0.8")
    key, rest = w.input("k", ("t", "j", *axes[:-1])), (*axes[:-2], "e")
    value = w.input("v", ("t", "j", *rest))
    if w.choose(True, False):
        answer = w.fresh("r")
        w.say(f"{answer}[{','.join(('t', 'j', *rest))}] = sum[d] {key} * {name}[t,j-1]")
        value = f"({value} - {answer})"
    w.say(f"{name}[t,j,{ends}] = {factor} * {name}[t,j-1] + 0.3 * {key} * {value}")
    out = w.fresh("o")
    w.say(f"{out}[{','.join(('t', *rest))}] = sum[d] {w.value(axes[:-1])} * {name}[t, |j|-1]")
    w.give(out, rest)


def normaliser(w: Writer) -> None:
    """A softmax over positions with any guard, multi-query or not; or weights that are not normalised."""
    w.declare("index s over t")
    heads = w.subset(("h",))
    q, k = w.input("q", ("t", *heads, "d")), w.input("k", ("t", *w.subset(heads), "d"))
    scores = f"sum[d] {q} * {k}[s]"
    if w.maybe():
        scores = w.choose("tanh({0}) * 3", "({0}) - (t - s) / 4", "({0}) / sqrt(|d|)", "({0}) * 30").format(scores)
    guard = _guard(w)
    p, out, axes = w.fresh("p"), w.fresh("o"), (*heads, "e")
    value = f"{w.input('v', ('t', *w.subset(heads), 'e'))}[s]"
    own = ",".join(("t", "s", *heads))
    kind = w.choose("softmax", "softmax", "written out", "sum")
    if kind == "softmax":
        w.say(f"{p}[{own}] = softmax[s{guard}]({scores})")
        w.say(f"{out}[{','.join(('t', *axes))}] = sum[s] {p} * {value}")
    else:
        w.say(f"{p}[{own}] = {'exp(0.2 * tanh({0}))' if kind == 'written out' else '{0}'}".format(scores))
        below = f" / (1 + sum[s{guard}] {p})" if kind == "written out" else ""
        w.say(f"{out}[{','.join(('t', *axes))}] = (sum[s{guard}] {p} * {value}){below}")
    w.give(out, axes)


def _guard(w: Writer) -> str:
    kind = w.choose("causal", "causal", "strict", "window", "none", "document", "marked", "stride")
    if kind == "none":
        return ""
    if kind == "document":
        name = w.input("doc", ("t",), "int")
        return f" | s <= t and {name}[s] == {name}[t]"
    if kind == "marked":
        return f" | s <= t and {w.input('m', ('t',), 'bool')}[s]"
    return (
        " | "
        + {"causal": "s <= t", "strict": "s < t", "window": "t - 3 < s <= t", "stride": "s <= t and s % 2 == 0"}[kind]
    )


def convolution(w: Writer) -> None:
    """A short causal convolution, or a long one with a kernel that is an input."""
    axes, out = w.subset(("h", "d")), w.fresh("o")
    own, name = ",".join(("t", *axes)), w.input("x", ("t", *axes))
    if w.choose(True, False):
        kernel = w.input("f", ("i", *w.subset(axes)))
        w.say(f"{out}[{own}] = sum[i] {kernel} * {name}[t-i]")
    else:
        w.declare("index s over t")
        kernel = w.input("a", w.subset(axes))
        w.say(f"{out}[{own}] = sum[s | s <= t] exp(-abs({kernel}) * (t - s)) * {name}[s]")
    w.give(out, axes)


KINDS: dict[str, Callable[[Writer], None]] = {
    "entrywise": entrywise,
    "inner reads": inner_reads,
    "dense": dense,
    "semiring": semiring,
    "normaliser": normaliser,
    "nonlinear": nonlinear,
    "grid": grid,
    "micro-steps": micro_steps,
    "convolution": convolution,
}
_OFTEN = ("entrywise", "entrywise", "entrywise", "inner reads", "inner reads", *KINDS)


@st.composite
def mixer_texts(draw: st.DrawFn, *, kinds: Sequence[str] = _OFTEN, parts: int = 3) -> str:
    """The text of a mixer named `drawn`, of at most so many parts, each of one of these `KINDS`."""
    writer = Writer(draw)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 2, parts])) if parts > 2 else parts):
        KINDS[draw(st.sampled_from(list(kinds)))](writer)
    return writer.text()


def cases() -> st.SearchStrategy[Case]:
    """A length of the stream (0, 1, no multiple of a chunk, ..), a seed, and whether decays are harsh."""
    return st.builds(Case, st.sampled_from(LENGTHS), st.integers(0, 10_000), st.booleans())
