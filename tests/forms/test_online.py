"""Which normalisers are read online, that the rewriting is the same function, and that its laws are proved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seqdsl.algebra import Proved, Refuted
from seqdsl.cli.main import main
from seqdsl.diagnostics import SeqError
from seqdsl.forms import derive
from seqdsl.forms.online_laws import LAWS, online_laws
from seqdsl.ir.interpreter import interpret
from seqdsl.ir.node import Node, walk
from seqdsl.ir.state import needed
from seqdsl.ir.system import System
from seqdsl.ir.text import print_system, read_system
from seqdsl.ir.validate import InvalidSystem, validate
from seqdsl.plan import choose
from seqdsl.semantics import load_system

CORPUS = Path(__file__).resolve().parent.parent / "corpus"
HEAD = "mixer m(q[t,h,d], k[s,h,d], v[s,h,e]) -> o[t,h,e]:\n    index s over t\n    a[t,s,h] = sum[d] q * k\n"


def reads_of(system: System) -> dict[str, Node]:
    """The online operators of a system, by the tensor that they stand in."""
    return {t.name: n for t in needed(system).derived() if t.rhs is not None for n in walk(t.rhs)
            if n.op == "normalised_read"}  # fmt: skip


def online(lines: str, head: str = HEAD) -> dict[str, Node]:
    return reads_of(
        derive(load_system(head + "".join(f"    {line}\n" for line in lines.split("; "))), "chunkwise").system
    )


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("p[t,s,h] = softmax[s | s <= t](a); o[t,h,e] = sum[s] p * v",
         "normalised_read[s | s <= t](sum[d](q[t,h,d] * k[s,h,d]), v[s,h,e])"),
        ("p[t,s,h] = 2 * softmax[s](a) / (t + 1); o[t,h,e] = sum[s] p * v",
         "normalised_read[s](sum[d](q[t,h,d] * k[s,h,d]), v[s,h,e])"),
        ("o[t,h,e] = sum[s | s <= t] softmax[s](a) * v",
         "normalised_read[s](sum[d](q[t,h,d] * k[s,h,d]), where(s <= t, v[s,h,e], 0))"),
        ("see[t,s] = s <= t; o[t,h,e] = sum[s | see] softmax[s | see](a) * v",
         "normalised_read[s | s <= t](sum[d](q[t,h,d] * k[s,h,d]), v[s,h,e])"),
        ("o[t,h,e] = (sum[s] exp(a) * v) / (sum[s] exp(a))",
         "normalised_read[s](sum[d](q[t,h,d] * k[s,h,d]), v[s,h,e])"),
        ("L[t,h] = logsumexp[s](a); o[t,h,e] = sum[s] exp(a - L[t]) * v",
         "normalised_read[s](sum[d](q[t,h,d] * k[s,h,d]), v[s,h,e])"),
    ],
)  # fmt: skip
def test_what_is_found(lines: str, expected: str) -> None:
    (node,) = online(lines).values()
    assert repr(node) == expected


@pytest.mark.parametrize(
    "lines",
    [
        "b[t,s,h] = softmax[s | s <= t](-2 * a) * q[t,h,0]; o[t,h,e] = sum[s] (softmax[s | s <= t](a) - b) * v",
        "m[t,s,h] = softmax[s](a) - q[t,h,0] * softmax[s | s <= t](-a) + softmax[s](2 * a); o[t,h,e] = sum[s] m * v / 2",
    ],
)
def test_a_difference_of_weights_is_read_weight_by_weight(lines: str) -> None:
    system = load_system(HEAD + "".join(f"    {line}\n" for line in lines.split("; ")))
    found = derive(system, "chunkwise").system
    nodes = [n for t in needed(found).derived() if t.rhs is not None for n in walk(t.rhs)]
    assert {n.op for n in nodes} >= {"normalised_read"} and "softmax" not in {n.op for n in nodes}
    rng = np.random.default_rng(0)
    inputs = {t.name: rng.standard_normal([{"h": 2, "d": 3, "e": 2}.get(i, 5) for i in t.indices]) for t in system.inputs()}
    wanted, got = (interpret(s, inputs=inputs)["outputs"]["o"] for s in (system, found))
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-13)


def test_weights_that_are_an_output_stay() -> None:
    """The weights are made anyway, so nothing is saved; a claim about them needs no code."""
    text = (
        HEAD.replace("-> o[t,h,e]", "-> o[t,h,e], p[t,s,h]")
        + "    p[t,s,h] = softmax[s](a)\n    o[t,h,e] = sum[s] p * v\n"
    )
    with pytest.raises(SeqError, match="form-not-available") as caught:
        derive(load_system(text), "chunkwise")
    assert any("`p`: it is needed entry by entry" in note for note in caught.value.diagnostics[0].notes)
    claimed = HEAD + "    p[t,s,h] = softmax[s](a)\n    o[t,h,e] = sum[s] p * v\n    claim rows_sum_to_one(p, s)\n"
    derived = derive(load_system(claimed), "chunkwise").system
    assert reads_of(derived) and "p" not in needed(derived).tensors and "p" in derived.tensors


def test_several_readers_of_one_weight() -> None:
    found = online("p[t,s,h] = softmax[s](a); x[t,h,e] = sum[s] p * v; o[t,h,e] = x + sum[s] p * v^2")
    assert set(found) == {"x", "o"}


@pytest.mark.parametrize(
    "lines",
    [
        "o[t,h,e] = sum[d] softmax[d](q) * v[t]",  # along a feature: there are no pairs of positions
        "w[s,h] = softmax[s](sum[d] k); c[h,e] = sum[s] w * v; o[t,h,e] = c + q[t,h,0]",  # one row
        "o[t,h,e] = sum[s] (softmax[s](a) + tanh(a)) * v",  # the other weights are no normaliser's
        "o[t,h,e] = sum[s] softmax[s](a) * softmax[s](a)",  # the weights twice: one of them stays
    ],
)
def test_what_does_not_pay(lines: str) -> None:
    try:
        assert all("softmax" not in repr(n.args[0]) for n in online(lines).values())
    except SeqError as error:
        assert error.code == "form-not-available"


def test_a_loop_over_the_rows_keeps_its_softmax() -> None:
    text = """
mixer m(x[t,d], v[s,d]) -> h[t,d]:
    index s over t
    h[t,d] = tanh(x + h[t-1] + sum[s | s < t] softmax[s | s < t](sum[d] h[t-1] * v) * v)
"""
    with pytest.raises(SeqError, match="form-not-available"):
        derive(load_system(text), "chunkwise")


def test_a_hybrid_has_both() -> None:
    system = derive(load_system(CORPUS / "hybrid.seq", "Hybrid"), "chunkwise").system
    ops = {n.op for t in system.derived() if t.rhs is not None for n in walk(t.rhs)}
    assert {"decayed_read", "normalised_read"} <= ops


def test_quadratic_is_all_pairs_at_once() -> None:
    system = load_system("softmax", "attention")
    derived = derive(system, "quadratic")
    assert derived.system.tensors == system.tensors
    assert derived.rewritten == ("o",)


@pytest.mark.parametrize("form", ["scan", "convolution"])
def test_forms_of_recurrences_say_that_there_is_none(form: str) -> None:
    with pytest.raises(SeqError) as caught:
        derive(load_system("softmax", "attention"), form)
    assert "no recurrence" in caught.value.diagnostics[0].message


@pytest.mark.parametrize(
    ("file", "mixer"),
    [("softmax", "attention"), ("softmax", "CrossAttention"), ("sliding_window", "sliding_window_sink")],
)
def test_auto_reads_online(file: str, mixer: str) -> None:
    assert choose(load_system(file, mixer)).form == "chunkwise"


@pytest.mark.parametrize(("file", "mixer"), [("attention.seq", "attention"), ("sliding.seq", "sliding"), ("alibi.seq", "alibi"),
                                             ("gqa.seq", "gqa"), ("urpe.seq", "urpe"), ("nsa.seq", "nsa")])  # fmt: skip
def test_the_state_is_that_of_the_equations(file: str, mixer: str) -> None:
    system = load_system(CORPUS / file, mixer)
    assert derive(system, "chunkwise").system.record == derive(system, "recurrent").system.record


@pytest.mark.parametrize("length", [0, 1, 63, 257])
def test_online_equals_the_equations(length: int) -> None:
    system = load_system("sliding_window", "sliding_window_sink", {"W": 9})
    rng = np.random.default_rng(length)
    inputs = {n: rng.standard_normal((length, 2, 3)) for n in "qkv"} | {"sink": rng.standard_normal(2)}
    wanted = interpret(system, inputs=inputs)
    found = interpret(derive(system, "chunkwise").system, inputs=inputs)
    np.testing.assert_allclose(found["outputs"]["o"], wanted["outputs"]["o"], rtol=1e-10, atol=1e-12)
    np.testing.assert_equal(found["state"], wanted["state"])


def test_the_text_reads_back_identically() -> None:
    system = derive(load_system("sliding_window", "sliding_window_sink"), "chunkwise").system
    assert read_system(print_system(system)) == system
    assert "normalised_read[s | " in print_system(system)


def test_the_validator_knows_the_operator() -> None:
    from dataclasses import replace

    from seqdsl.ir import build

    system = derive(load_system("softmax", "attention"), "chunkwise").system
    (node,) = reads_of(system).values()
    broken = build.make(node.op, node.args[0], build.const("i"), node.args[2], attr=node.attr)
    with pytest.raises(InvalidSystem, match="takes real operands"):
        validate(system.with_tensors(replace(system.tensors["o"], rhs=broken)))


# Laws ------------------------------------------------------------------------------------------------------------


def test_the_laws_are_proved() -> None:
    laws = online_laws()
    assert set(laws) == {"associative", "identity", "step = act by lift", "shift invariance"}
    assert all(isinstance(v, Proved) and "canonical forms" in v.how for v in laws.values()), laws


@pytest.mark.parametrize(
    ("old", "new", "law"),
    [
        ("u = a.u * exp(a.m - m)", "u = a.u", "associative"),
        ("identity = (-inf, 0, 0)", "identity = (0, 0, 0)", "identity"),
        ("l = a.l * exp(a.m - m) + b.l * exp(b.m - m)", "l = a.l * exp(a.m - m) + b.l", "step = act by lift"),
        ("/ (sum[s] exp(z - c))", "/ (sum[s] exp(z))", "shift invariance"),
    ],
)
def test_a_wrong_law_is_not_proved(old: str, new: str, law: str) -> None:
    assert old in LAWS
    found = online_laws(LAWS.replace(old, new))
    assert not isinstance(found[law], Proved)
    if law in ("associative", "identity"):
        assert isinstance(found[law], Refuted)


def test_explain_prints_form_obligation_and_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "softmax"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "form chunkwise (auto)" in shown
    assert "is a monoid with identity (-inf, 0, 0)" in shown
    for law in ("associative", "identity", "step = act by lift", "shift invariance"):
        assert f"{law}: proved" in shown
