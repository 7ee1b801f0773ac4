"""Expressions in the language's own notation, with as few parentheses as reading needs."""

from __future__ import annotations

import pytest
from hypothesis import given

from seqdsl.ir.show import show
from seqdsl.ir.system import System
from seqdsl.ir.text import read_system

from .random_systems import systems

SHOWN = [  # the unambiguous form, and what a user reads
    ("exp(g[t,h]) * S[t-1,h] + k[t,h] * v[t]", "exp(g[t,h]) * S[t-1,h] + k[t,h] * v[t]"),
    ("(a[] + b[]) * c[]", "(a + b) * c"), ("a[] - (b[] - c[])", "a - (b - c)"), ("a[] - b[] - c[]", "a - b - c"),
    ("a[] / (b[] * c[])", "a / (b * c)"), ("-(a[] + b[])", "-(a + b)"), ("a[] ^ 2", "a^2"),
    ("(-1) ^ a[]", "(-1)^a"), ("(a[] ^ b[]) ^ c[]", "(a^b)^c"), ("2 * -a[]", "2 * -a"),
    ("sum[d](q[t,d] * k[t,d])", "sum[d](q[t,d] * k[t,d])"), ("softmax[s | s <= t](a[t,s])", "softmax[s | s <= t](a[t,s])"),
    ("rms_norm[e](o[e]; eps = 1e-05)", "rms_norm[e](o[e]; eps = 1e-05)"), ("fft[i -> f](x[i])", "fft[i -> f](x[i])"),
    ("fft[i](x[i])", "fft[i](x[i])"), ("where(t == 0, 1, 0)", "where(t == 0, 1, 0)"), ("maximum(a[], b[])", "max(a, b)"),
    ("not (a[]:bool and b[]:bool)", "not (a and b)"), ("a[]:bool or b[]:bool and c[]:bool", "a or b and c"),
    ("exact_div(|c|, $H)", "|c| / H"), ("0.5 + 1.0 + inf + pi", "0.5 + 1.0 + inf + pi"), ("1i * a[]", "1i * a"),
    ("t - 1 < s and s <= t", "t - 1 < s and s <= t"), ("round(x[]; grad = identity)", "round(x; grad = identity)"),
    ("a[] * (b[] // c[])", "a * (b // c)"), ("a[] * (b[] / c[])", "a * b / c"), ("a[] + (b[] - c[])", "a + b - c"),
    ("(a[] < b[]) == (b[] < c[])", "(a < b) == (b < c)"), ("a[] / real(1/3)", "a / (1/3)"), ("a[] * real(1/3)", "a * (1/3)"),
    ("x[where(t == 0 and s == 0, 1, 2)]", "x[where(t == 0 and s == 0, 1, 2)]"), ("a[] - 1 - 2.5", "a - 1 - 2.5"),
    ("x[t - |h| + 1]", "x[t-|h|+1]"), ("true", "true"),
]  # fmt: skip


def expression(text: str) -> System:
    return read_system(f"system s\nderived y[]: real = {text}\noutput y\n")


@pytest.mark.parametrize(("text", "expected"), SHOWN)
def test_show(text: str, expected: str) -> None:
    node = expression(text).tensors["y"].rhs
    assert node is not None and show(node) == repr(node) == expected


@given(systems())
def test_anything_can_be_shown(system: System) -> None:
    for tensor in system.derived():
        assert tensor.rhs is not None and show(tensor.rhs)
