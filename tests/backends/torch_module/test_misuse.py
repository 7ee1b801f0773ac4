"""A module used wrongly says what was wrong, and never computes something else in silence."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

import seqdsl
from seqdsl.diagnostics import SeqError
from tests.backends.torch_module.harness import CORPUS, random_inputs, system_of


@cache
def mixer(file: str, name: str, **sizes: int) -> Any:
    return seqdsl.load(CORPUS / f"{file}.seq", name).module(**sizes)


BUILDS = [
    ("gla", "GLA", {}, "needs the length of c"),
    ("gla", "GLA", {"c": 16, "foo": 3}, "`GLA` has no option or axis `foo`"),
    ("gla", "GLA", {"c": 16, "d": 3}, "no size `d`"),
    ("gla", "GLA", {"c": 16, "H": 3}, "8 / 3"),
    ("gla", "GLA", {"c": 16.0}, "the size `c` is an integer, not 16.0"),
    ("gla", "GLA", {"c": -4}, "is -4, and must not be negative"),
    ("gla", "gla", {"h": 2}, "none: its sizes are those of its inputs"),
    ("gfnet", "global_filter", {"i": 3, "c": 2}, "needs the length of j"),
    ("nsa", "nsa", {"B": 0}, "the axis `j` is 0, and must be at least 1"),
]


@pytest.mark.parametrize(("file", "name", "sizes", "message"), BUILDS)
def test_sizes_that_do_not_fit(file: str, name: str, sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(SeqError, match=message):
        mixer(file, name, **sizes)


X = torch.randn(2, 5, 16)
S = torch.zeros(2, 4, 2, 4)
CALLS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda m: m(X.long()), "`x` must be real, and is torch.int64"),
    (lambda m: m(X.to(torch.complex64)), "`x` must be real, and is torch.complex64"),
    (lambda m: m(X[0]), r"must have the axes \[batch, t, c\], and is \[5, 16\]"),
    (lambda m: m(X[..., :3]), "the axis `c` has length 3 in `x`"),
    (lambda m: m(X.numpy()), "and is ndarray"),
    (lambda m: m(X, state={}), r"state must have the entries \['o'\], and has \[\]"),
    (lambda m: m(X, state={"S": S}), r"state must have the entries \['o'\], and has \['S'\]"),
    (lambda m: m(X, state={"o": {"S": S, "z": S}}), r"state\[\"o\"\] must have the entries \['S'\]"),
    (lambda m: m(X, state=S), "and has Tensor"),
    (lambda m: m(X, state={"o": {"S": torch.zeros(3, 4, 2, 4)}}), r"the shape \[1 or 2, 4, 2, 4\], and has \[3, 4, 2, 4\]"),
    (lambda m: m(X, state={"o": {"S": S[..., :1]}}), r"and has \[2, 4, 2, 1\]"),
    (lambda m: m.step(X, m.init_state(2)), r"must have the axes \[batch, t, c\]"),
    (lambda m: m.step(X[:, 0], m.init_state(3)), r"the shape \[1 or 2, 4, 2, 4\]"),
    (lambda m: m(X, cu_seqlens=[0, 5]), "packed sequences have batch size 1"),
    (lambda m: m(X[:1], cu_seqlens=[0, 4]), "must rise from 0 to the packed length 5"),
    (lambda m: m(X[:1], cu_seqlens=[0, 4, 2, 5]), "must rise from 0"),
    (lambda m: m(X[:1], cu_seqlens=torch.tensor([0.0, 5.0])), "must rise from 0"),
    (lambda m: m(X[:1], cu_seqlens=torch.tensor([[0, 5]])), "must rise from 0"),
    (lambda m: m(X[:1], cu_seqlens=5), "must rise from 0"),
    (lambda m: m(X[:1], cu_seqlens=[False, 5]), "must rise from 0"),
    (lambda m: m(X, state={"o": {"S": S * 1j}}), r"state\[\"o\"\]\[\"S\"\] must be real, and is torch.complex64"),
    (lambda m: m.init_state(-1), "`batch` of a state is -1"),
    (lambda m: m(X[:1], cu_seqlens=[0, 2, 5], state=m.init_state(3)), "the state is of 3 sequences, and cu_seqlens of 2"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), CALLS, ids=range(len(CALLS)))
def test_calls_that_do_not_fit(call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(mixer("gla", "GLA", c=16))


def test_a_cache_is_as_long_as_its_position_says() -> None:
    module, q = mixer("attention", "attention"), torch.randn(2, 3, 2, 4)
    assert module(q, q, q, state={"k": q, "v": q, "position": 3}).shape == q.shape
    for state in ({"k": q, "v": q}, {"k": q, "v": q, "position": "3"}, {"k": q, "v": q, "position": -1}):
        with pytest.raises(ValueError, match="has a `position`"):
            module(q, q, q, state=state)
    with pytest.raises(ValueError, match=r"state\[\"k\"\] must have the shape \[1 or 2, 2, 2, 4\]"):
        module(q, q, q, state={"k": q, "v": q, "position": 2})


def test_integers_and_booleans_are_not_converted() -> None:
    model = mixer("transformer", "Transformer", M=11, C=8, N=9, L=2, H=2)
    with pytest.raises(ValueError, match="`tokens` must be int, and is torch.float32"):
        model(torch.randn(2, 4))
    with pytest.raises(ValueError, match="`tokens` must be int, and is torch.bool"):
        model(torch.ones(2, 4, dtype=torch.bool))
    assert torch.equal(model(torch.ones(2, 4, dtype=torch.int32)), model(torch.ones(2, 4, dtype=torch.long)))


DECLARED = """
mixer m(x[t,c: C], w[j: |c| - 1], r[t]: bool; C = 4) -> y[t], n[t]:
    n[t] = where(r, 0, n[t-1] + 1)
    y[t] = n * w[0] * sum[c] x
"""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": torch.zeros(1, 5, 3)}, "m: the axis `c` has length 3, and its declaration says 4"),
        ({"w": torch.zeros(1, 2)}, "m: the axis `j` has length 2, and its declaration says 3"),
        ({"w": torch.zeros(1, 3, device="meta")}, "m: `w` is on meta, and `x` on cpu"),
        ({"state": {"n": torch.zeros(1)}}, r"m: state\[\"n\"\] must be int, and is torch.float32"),
    ],
)
def test_lengths_devices_and_kinds_as_declared(given: dict[str, Any], message: str) -> None:
    module = seqdsl.load(DECLARED).module()
    fitting = {"x": torch.ones(1, 5, 4), "w": torch.ones(1, 3), "r": torch.zeros(1, 5) > 1}
    assert module(**fitting, state={"n": torch.zeros(1, dtype=torch.int32)})[0].tolist() == [[4, 8, 12, 16, 20]]
    with pytest.raises(ValueError, match=message):
        module(**{**fitting, **given})


def test_a_recurrence_that_reads_too_far_back() -> None:
    program = seqdsl.load("mixer m(x[t]) -> y[t]:\n    y[t] = 0.5 * y[t-1000000000] + x\n")
    with pytest.raises(SeqError, match="`y`, which reads itself 1000000000 positions away: at most 10000"):
        program.module()


def test_a_length_that_comes_out_negative() -> None:
    module = mixer("tome", "tome", r=8)
    with pytest.raises(ValueError, match="tome: the axis `n` is -3, and must be at least 0"):
        module(torch.randn(1, 5, 2), torch.randn(1, 5, 2), torch.randn(1, 5))


def test_packed_outputs_without_a_common_shape() -> None:
    module, x = mixer("haar", "haar"), torch.randn(1, 8, 2)
    assert [tuple(y.shape) for y in module(x, cu_seqlens=[0, 4, 8])] == [(2, 2, 2), (2, 2, 2)]
    with pytest.raises(ValueError, match="run the sequences one by one"):
        module(x, cu_seqlens=[0, 2, 8])


def test_states_of_one_sequence_serve_a_batch() -> None:
    """A state of batch size 1 goes on with every sequence; one of another dtype is converted."""
    module, system = mixer("gla", "gla"), system_of("gla", "gla")
    one = [x.float() for x in random_inputs(system, batch=1)]
    many = [x.float() for x in random_inputs(system, batch=3)]
    _, state = module(*one, return_state=True)
    wide = {"S": state["S"].expand(3, -1, -1, -1)}
    assert torch.equal(module(*many, state=state), module(*many, state=wide))
    _, last = module(*many, state={"S": state["S"].double()}, return_state=True)
    assert last["S"].dtype == torch.float32
