"""The textual form reads back identically, whatever the system; a malformed text is a `SeqError` that points at it."""

from __future__ import annotations

from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqdsl.diagnostics import SeqError
from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import make
from seqdsl.ir.state import StateEntry
from seqdsl.ir.system import Claim, Edge, Index, Monoid, SizeCheck, System, Tensor
from seqdsl.ir.text import print_system, read_system
from seqdsl.ir.validate import validate

from .corpus import FILES, systems_of
from .random_systems import systems


def check(system: System) -> str:
    text = print_system(system)
    found = read_system(text)
    assert found == system
    for part in ("options", "indices", "tensors", "monoids", "finals"):
        assert list(getattr(found, part)) == list(getattr(system, part)), f"the order of the {part}"
    assert print_system(found) == text
    return text


def tensor_of(node: Node) -> System:
    return System("s", {}, {}, {"y": Tensor("y", (), node.dtype, "derived", node)}, ("y",))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_corpus_and_library(path: Path) -> None:
    for system in systems_of(path):
        validate(system)
        check(system)


@given(systems())
def test_random_systems(system: System) -> None:
    text = check(system)
    assert text.count("\n") == 1 + 1 + len(system.indices) + len(system.tensors) + len(system.outputs)


NAMES = st.one_of(st.sampled_from(["t", "S@t=-1", "o.S", "s'", "and", "inf", "real", "", '`"\\', "a b", "é", "x\ny", "1i"]),
                  st.text(max_size=5))  # fmt: skip


@given(NAMES, NAMES, st.text(max_size=20), st.integers(-3, 3))
def test_any_name_and_text(a: str, b: str, text: str, n: int) -> None:
    point, other = build.const(n), make("neg", make("size", attr=a))
    tensor = Tensor(a, (a, b), "real", "derived", build.read(b, [make("index", attr=a), point], "complex"),
                    (Edge(n, point, b), Edge(1, other, a)), (text, b), (a, b), text)
    carry = Tensor(b, (), "int", "carry", point, path=(text,))
    monoid = Monoid(a, ((b, (a,)),), ((a, ()),), (other,), (other,) if n else None, (carry,), (tensor,), b,
                    (Claim(b, (a, b), text),), ("bool",) if n else ())
    entry = StateEntry(a, b, n, None if n else point, other if n else None, None if n < 0 else point)
    inner = System(b, {}, {}, {}, ())
    claims = (Claim(a, (b,), text, other, inner, (point, other)), Claim(b, (), text))
    check(System(a, {a: None, b: point}, {a: Index(a, b, None), b: Index(b, b, other)}, {a: tensor, b: carry}, (a, b),
                 claims, {a: monoid}, (SizeCheck(text, other, n),), ((a, b),), (text, text), {a: b},
                 (entry,) if n else None if n == 0 else ()))


def test_no_state_and_an_empty_state_differ() -> None:
    system = tensor_of(build.ONE)
    check(system)
    assert "record" in check(replace(system, record=()))


VALUES = st.one_of(
    st.integers(), st.booleans(), st.sampled_from(["inf", "pi", "i"]), st.fractions(),
    st.sampled_from([Fraction(1, 10**6), Fraction(-1, 3), Fraction(10**400 + 1, 3), Fraction(5), Fraction(-2), 10**40]),
)  # fmt: skip
CONSTANTS = VALUES.map(build.const)
DTYPES = st.sampled_from(["bool", "int", "real", "complex"])
TERMS = st.recursive(
    st.one_of(CONSTANTS, st.sampled_from("ts").map(build.index), st.just(build.option("H")), st.just(build.size("t"))),
    lambda below: st.one_of(
        st.builds(make, st.sampled_from("add sub mul div floor_div mod pow lt le eq ne and or maximum exact_div".split()),
                  below, below),
        st.builds(make, st.sampled_from(["neg", "not", "exp", "stop"]), below),
        st.builds(lambda c, a, b: make("where", c, a, b), below, below, below),
        st.builds(lambda a, d: make("read", a, attr="x", dtype=d), below, DTYPES),
        st.builds(lambda a, g: make("sum", a, g, attr=(("t", "s"), ())), below, below),
        st.builds(lambda a: make("softmax", a, build.TRUE, attr=(("t",), ())), below),
        st.builds(lambda a: make("rms_norm", a, build.TRUE, attr=(("t",), (("eps", Fraction(1, 7)),))), below),
        st.builds(lambda a: make("round", a, attr=(("grad", "identity"),)), below),
        st.builds(lambda a, to: make("fft", a, attr=(("t",), to, ())), below, st.sampled_from([("t",), ("s",), ()])),
        st.builds(lambda a, b, c: make("affine_scan", a, b, c, attr=(("t",), (), (("log", True), ("reverse", False)))),
                  below, below, below),
        st.builds(lambda a, g, d: make("fold", a, g, attr=("M", ("t",), ("s", "u")), dtype=d), below, below, DTYPES),
        st.builds(lambda a, d: make(a.op, *a.args, attr=a.attr, dtype=d), below, DTYPES)),
    max_leaves=12)  # fmt: skip


@given(TERMS)
def test_any_expression(node: Node) -> None:
    check(tensor_of(node))


def test_the_form_is_readable() -> None:
    system = read_system("""
        # comments and blank lines are skipped
        system gla

        index t
        index d: |c| // $H
        input q[t,d]: real
        derived S[t,d]: real = exp(g[t,d]) * S[t - 1,d] + k[t,d]; edge 0 -1 `S@t=-1`; comment "S[t,d] = .."
        output S
        """)
    rhs = system.tensors["S"].rhs
    assert rhs is not None and rhs.args[0].args[1].args[0] is build.sub(build.index("t"), build.ONE)
    line = 'derived S[t,d]: real = exp(g[t,d]) * S[t-1,d] + k[t,d]; edge 0 -1 `S@t=-1`; comment "S[t,d] = .."'
    assert line in print_system(system).splitlines()


HEAD = "system s\nindex t\n"
MALFORMED = {  # text, and what the error is at
    "": "", "index t": "index", "system": "", "system s\nsystem s": "system", "system s\nfoo x": "foo",
    "system s end": "end", "system s\nend": "end", HEAD + "derived y[t]: real = x[t": "", HEAD + "derived y[t]: float": "float",
    HEAD + "derived y[t]: real = ": "", HEAD + "derived y[t]: real = x[t] +": "", HEAD + "derived y[t]: real = foo(t)": "foo",
    HEAD + "derived y[t]: real = exp(t, t)": ")", HEAD + "derived y[t]: real = exp[t](t)": "exp",
    HEAD + "derived y[t]: real = sum(t)": "sum", HEAD + "derived y[t]: real = sum[t+1](t)": "+",
    HEAD + "derived y[t]: real = t:float": "float", HEAD + "derived y[t]: real = t; edge t": "t",
    HEAD + "derived y[t]: real = t; color red": "color", HEAD + "derived y[t]: real = real(1/0)": ")",
    HEAD + "derived y[t]: real = $": "", HEAD + "derived y[t]: real = |t": "", HEAD + "derived y[t]: real = (t": "",
    HEAD + "derived y[t]: real = fold M(t)": "(", HEAD + "derived y[t]: real = t t": "t", HEAD + "output": "",
    HEAD + "derived y[t]: real = ?": "?", HEAD + 'doc "unfinished': '"', HEAD + r'doc "\q"': r'"\q"', HEAD + "output `x": "`",
    HEAD + "derived y[t]: real = first(1)": "1", HEAD + "check x >= 1: 2": "x", HEAD + "check \"x\" > 1: 2": ">",
    HEAD + "entry S at S": "at", HEAD + "claim causal": "", HEAD + 'claim causal "c"; about': "",
    HEAD + 'claim causal "c"; about\nsystem u': "", HEAD + "monoid M\nend": "monoid", HEAD + "monoid M\nfoo": "foo",
    HEAD + "monoid M\nfield x[]": "", HEAD + "derived y[t]: real = rms_norm[t](t; eps)": ")",
    HEAD + "derived y[t]: real = rms_norm[t](t; eps = t + 1)": "+", HEAD + "derived y[t]: real = not": "",
    HEAD + "derived y[t]: real = " + "1" * 5000: "1" * 5000, HEAD + "derived y[t]: real = x[t,]": "]",
    HEAD + "derived y[t]: real = 1e9999": "9", HEAD + "derived y[t]: real = float(x)": "x", HEAD + "end\nindex u": "end",
    HEAD + "index d over": "", HEAD + "option H =": "", HEAD + "final S": "", HEAD + "derived y[t,]: real": "]",
}  # fmt: skip


@pytest.mark.parametrize("text", MALFORMED, ids=lambda text: text.splitlines()[-1][:40] if text else "nothing")
def test_malformed(text: str) -> None:
    with pytest.raises(SeqError) as error:
        read_system(text)
    found = error.value.diagnostics[0]
    assert found.code == "bad-ir-text" and found.span is not None
    assert found.span.text == MALFORMED[text] and found.span.start <= len(text)
    assert text.split("\n")[found.span.line - 1][found.span.column - 1 :].startswith(MALFORMED[text])


def test_hostile_depth_is_no_crash() -> None:
    for deep in ("(" * 10**5, "-" * 10**5 + "t", "exp(" * 10**5, "x[" * 10**5):
        with pytest.raises(SeqError):
            read_system(HEAD + f"derived y[t]: real = {deep}")


@given(st.data())
def test_damaged_texts_read_or_are_refused(data: st.DataObject) -> None:
    text = print_system(data.draw(st.sampled_from([s for path in FILES[:8] for s in systems_of(path)])))
    start = data.draw(st.integers(0, len(text)))
    damage = data.draw(st.sampled_from(["", "\n", "[", ")", "`", '"', " t ", "=", "1", "derived ", "end\n", "\0", "é"]))
    try:
        read_system(text[:start] + damage + text[start + data.draw(st.integers(0, 9)) :])
    except SeqError as error:
        assert error.code == "bad-ir-text"


def test_every_field_is_in_the_text() -> None:
    """A field added to these classes must be added to the textual form, and then here."""
    known = {
        System: "name options indices tensors outputs claims monoids checks constraints doc finals record spans",
        Tensor: "name indices dtype kind rhs edges path fan_in comment", Index: "name axis size",
        Edge: "position point tensor", Claim: "kind args text condition system nodes span",
        Monoid: "name fields lift_params lift identity combine project output claims types",
        SizeCheck: "label value least span", StateEntry: "name tensor position tail boundary beyond across",
    }  # fmt: skip
    for kind, names in known.items():
        assert [f.name for f in fields(kind)] == names.split()
