"""What depends on sizes and positions alone is rounded once, and nothing else changes by it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

import seqdsl

# Angles of thousands of radians, a sum that cancels, a matrix that is inverted, an iteration, complex powers.
SENSITIVE = {
    "angles": """mixer m(x[t,d]) -> y[t,d]:
    y[t,d] = x * cos(t * 3 ^ (-d / |d|)) + x[d+1] * sin(t * 3 ^ (-d / |d|))
""",
    "cancelled": """mixer m(x[t,d]) -> y[t,d]:
    w[t,d] = exp(0.001 * (t + d)) - exp(0.001 * t)
    y[t,d] = x * w
""",
    "inverse": """mixer m(x[t,d]) -> y[t,n]:
    index m over n
    A[n: 6, m] = 1 / (n + m + 1) + 0.001 * (n == m)
    b[n]       = solve[m -> n](A[m,n], exp(0.3 * m))
    y[t,n]     = b * sum[d] x
""",
    "iterated": """mixer m(x[t,d]) -> y[t,d]:
    z[-1,d]    = 0.3 + 0.01 * d
    z[i: 12, d] = 3.7 * z[i-1] * (1 - z[i-1])
    y[t,d]     = x * z[11]
""",
    "complex": """mixer m(x[t,d]) -> y[t,d]:
    w[t,d] = exp(1i * t * (2 + d) / 3)
    y[t,d] = re(w * x)
""",
    "scanned": """mixer m(x[t,d]) -> h[t,d]:
    h[t,d] = cos(0.7 * t + d) * h[t-1] + x
""",
}
FORM = {"scanned": ("scan", "recurrent")}


def worst(text: str, form: str, time: int) -> float:
    """The largest relative RMS error of a float32 module over its outputs."""
    program = seqdsl.load(text)
    x = torch.randn(1, time, 4, generator=torch.Generator().manual_seed(0))
    truth = next(iter(program.interpret(inputs={"x": x[0].double().numpy()})["outputs"].values()))
    found = program.module(form)(x)[0].double().numpy()
    return float(np.sqrt(np.mean((found - truth) ** 2) / np.mean(truth**2)))


@pytest.mark.parametrize("name", SENSITIVE)
def test_float32_is_as_good_as_its_operands(name: str) -> None:
    for form in FORM.get(name, ("recurrent",)):
        assert worst(SENSITIVE[name], form, 3000) < 5e-7


def test_a_memory_whose_matrix_is_an_exponential() -> None:
    u = torch.randn(1, 300, generator=torch.Generator().manual_seed(0))
    program = seqdsl.load("lmu", "lmu")
    truth = program.interpret(inputs={"u": u[0].double().numpy()}, sizes={"N": 16, "theta": 300})["outputs"]["x"]
    for form, most in (("scan", 5e-6), ("convolution", 5e-7)):  # the scan's powers, in float32, lose a digit of their own
        found = program.module(form, N=16, theta=300)(u)[0].double().numpy()
        assert np.sqrt(np.mean((found - truth) ** 2) / np.mean(truth**2)) < most


def test_a_table_is_computed_once_for_two_calls() -> None:
    text = seqdsl.load("rope", "rope_attention").source("chunkwise")
    assert text.count("torch.cos(") == text.count("torch.sin(") == 1


def test_what_a_guard_keeps_from_being_infinite_stays_below_it() -> None:
    text = "mixer m(x[t,d]) -> y[t,d]:\n    y[t,d] = where(t > 0, x * log(t), 0) + sum[d | d > 0] x * (1 / d) ^ 0.5\n"
    x = torch.randn(1, 5, 3, dtype=torch.float64, requires_grad=True)
    seqdsl.load(text).module("recurrent")(x).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_positions_after_a_state_are_counted_on() -> None:
    module = seqdsl.load("mixer m(x[t,d]) -> y[t,d]:\n    y[t,d] = x * cos(0.5 * t) + 0.1 * x[t-1]\n").module("recurrent")
    x = torch.randn(2, 9, 3)
    whole = module(x)
    first, state = module(x[:, :4], return_state=True)
    rest = [first]
    for t in range(4, 9):
        row, state = module.step(x[:, t], state)
        rest.append(row[:, None])
    torch.testing.assert_close(torch.cat(rest, 1), whole)


def test_tables_of_pairs_of_positions_stay_with_their_scores() -> None:
    text = """mixer m(x[t,d]) -> y[t,d]:
    index s over t
    y[t,d] = sum[s | s <= t] exp(-0.1 * (t - s)) * x[s]
"""
    assert "def tables" not in seqdsl.load(text).source("recurrent")
    assert "def tables" in seqdsl.load(SENSITIVE["angles"]).source("recurrent")


TURNED = "mixer m(x[t,d]; r = 2) -> y[t,d], w[t]:\n    w[t]   = cos(r * t)\n    y[t,d] = x * w + 0.1 * x[t-1]\n"


def turned(x: torch.Tensor, rate: int = 2, past: int = 0) -> torch.Tensor:
    return torch.cos(rate * torch.arange(past, past + x.shape[1], dtype=torch.float64))


def counted(module: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the module's tables are made, from here on."""
    file = sys.modules[type(module).__module__]
    made, rounded = [0], file._rounded
    file._TABLES.clear()

    def watched(tables: object, *rest: object) -> object:
        def counting(dtype: torch.dtype) -> object:
            made[0] += 1
            return tables(dtype)  # type: ignore[operator]

        counting.__qualname__ = tables.__qualname__  # type: ignore[attr-defined]
        return rounded(counting, *rest)

    monkeypatch.setattr(file, "_rounded", watched)
    return made


def test_tables_of_the_same_sizes_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    two, three = (seqdsl.load(TURNED).module("recurrent", r=rate).double() for rate in (2, 3))
    made = counted(two, monkeypatch)
    x = torch.randn(1, 9, 3, dtype=torch.float64)
    for module, rate in ((two, 2), (two, 2), (three, 3), (two, 2)):
        torch.testing.assert_close(module(x)[1][0], turned(x, rate), rtol=1e-14, atol=1e-14)
    assert made[0] == 2
    state = None
    for t in range(9):  # every position has its own
        (_, w), state = two.step(x[:, t], two.init_state(d=3) if state is None else state)
        torch.testing.assert_close(w[0], turned(x)[t], rtol=1e-14, atol=1e-14)
    assert two(x.float())[1].dtype == torch.float32
    assert len(sys.modules[type(two).__module__]._TABLES) <= 8


def test_kept_tables_are_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    module = seqdsl.load(TURNED).module("recurrent").double()
    made = counted(module, monkeypatch)
    x = torch.randn(1, 9, 3, dtype=torch.float64, requires_grad=True)
    with torch.inference_mode():
        module(x)[1].zero_()
    y, w = module(x)
    y.sum().backward()
    torch.testing.assert_close(w[0], turned(x), rtol=1e-14, atol=1e-14)
    w.detach().zero_()
    exported = torch.export.export(module, (x.detach(),)).module()
    for found in (module(x), exported(x.detach()), torch.vmap(module)(x.detach()[None])):
        torch.testing.assert_close(found[1].flatten(), turned(x), rtol=1e-14, atol=1e-14)
    assert made[0] == 2  # once for all calls, and once where it was traced


def test_packed_positions_are_not_kept_by_their_number() -> None:
    module = seqdsl.load(TURNED).module("recurrent").double()
    x = torch.randn(1, 9, 3, dtype=torch.float64)
    for ends in ((0, 4, 9), (0, 1, 9), (0, 9)):
        found = module(x, cu_seqlens=torch.tensor(ends))[1][0]
        wanted = torch.cat([turned(x[:, a:b]) for a, b in zip(ends, ends[1:], strict=False)])
        torch.testing.assert_close(found, wanted, rtol=1e-14, atol=1e-14)
