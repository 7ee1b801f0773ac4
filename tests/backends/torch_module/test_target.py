"""What a target may replace: the emitter asks its table for every function that it calls."""

from __future__ import annotations

from seqdsl.backends.torch_module import emit_module
from seqdsl.backends.torch_module.target import StandIn, Target

from seqdsl.forms.derive import derive
from tests.backends.torch_module.harness import load_system

TWICE = """
mixer twice(q[t,h,d], k[t,h,d], v[t,h,e], other[t,h,e]) -> o[t,h,e], z[t,h,e]:
    S[t,h,d,e] = S[t-1] + k * v
    o[t,h,e]   = sum[d] 3 * q * S / sqrt(|d|)
    z[t,h,e]   = v * other + o
"""


def _text(target: Target) -> str:
    return emit_module(derive(load_system(TWICE), "chunkwise").system, class_name="Twice", target=target)


def test_a_stand_in_is_called_and_imported_and_the_function_not_taken_along() -> None:
    text = _text(Target("mine", {"chunk_linear_attention": StandIn("fast")}))
    assert "from .mine import fast" in text and "from mine import fast" in text
    assert " = fast(" in text and "chunk_linear_attention" not in text and "dots=" not in text


def test_without_a_call_of_it_nothing_is_imported() -> None:
    assert _text(Target("mine", {"affine_scan": StandIn("fast")})) == _text(Target())


def test_a_narrow_stand_in_gets_what_nothing_else_reads_as_it_is() -> None:
    text = _text(Target("mine", {"chunk_linear_attention": StandIn("fast", narrow=True)}))
    assert "k = _input(k, B, k.dtype)" in text and "q = _input(q, B, q.dtype)" in text
    assert "v = _input(v, B, dtype)" in text  # z reads it, too
    assert "scale=3.0 / math.sqrt(D)" in text and "dots=out_dtype" in text
    assert " dtype=out_dtype" not in text  # z reads o


def test_no_variable_has_a_stand_ins_name() -> None:
    source = TWICE.replace("other", "fast")
    system = load_system(source)
    text = emit_module(system, class_name="Twice", target=Target("mine", {"affine_scan": StandIn("fast")}))
    assert "fast_2: Tensor" in text or "fast_1: Tensor" in text
