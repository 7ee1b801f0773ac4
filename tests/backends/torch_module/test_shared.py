"""What is made of inputs that all sequences of a batch share is made once, and where they do not share them, for each."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

import seqdsl

# The shapes of a mixer's inputs but for the batch; the first one lies along the stream.
MIXERS: dict[str, tuple[str, str, str, tuple[tuple[int, ...], ...]]] = {
    "diagonal": ("""mixer m(x[t,c], a[c,n], b[c,n]) -> y[t,c]:
    h[t,c,n] = sigmoid(a) * h[t-1] + b * x
    y[t,c]   = 2 * (sum[n] b * h) + x
""", "m", "convolution", ((13, 2), (2, 3), (2, 3))),
    "matrix, and its state": ("""mixer m(x[t,c], a[n,m], b[n]) -> y[t,c], z[n]:
    index m over n
    z[n]     = sum[m] a * b[m]
    h[t,c,n] = 0.4 * (sum[m] tanh(a) * h[t-1,c,m]) + z * x
    y[t,c]   = sum[n] b * h
""", "m", "convolution", ((13, 2), (3, 3), (3,))),
    "a loop": ("""mixer m(x[t,c], a[c]) -> y[t,c]:
    w[-1,c]      = a
    w[l: |t|, c] = sin(w[l-1] * 3)
    y[t,c]       = sum[l | l <= t] w * x[t-l]
""", "m", "recurrent", ((13, 2), (2,))),
    "a table of pairs": ("""mixer m(x[t,c], p[r: 2*|t|-1]) -> y[t,c]:
    index s over t
    b[t,s] = exp(p[t-s+|t|-1])
    y[t,c] = (sum[s] b * x[s]) / (sum[s] b)
""", "m", "recurrent", ((13, 2), (25,))),
    "the fronts of a grid": ("""mixer m(x[t,c], a[i,j]) -> y[t,c], p[i,j]:
    p[i,j] = tanh(p[i-1] / 2) + 0.3 * p[i,j-1] + a
    y[t,c] = x * y[t-1] + 1
""", "m", "wavefront", ((13, 2), (3, 4))),
}


def module_of(name: str) -> tuple[object, list[Tensor]]:
    """The module, and inputs in float64: the first of three sequences, the others of one."""
    text, mixer, form, shapes = MIXERS[name]
    draw = torch.Generator().manual_seed(2)
    sizes = [3, *[1] * (len(shapes) - 1)]
    given = [torch.randn(n, *s, generator=draw, dtype=torch.float64) for n, s in zip(sizes, shapes, strict=True)]
    return seqdsl.load(text, mixer).module(form), given


def outputs(module: object, given: list[Tensor]) -> tuple[Tensor, ...]:
    found = module(*given)  # type: ignore[operator]
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.parametrize("name", MIXERS)
def test_it_is_made_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, given = module_of(name)
    file = sys.modules[type(module).__module__]
    made: list[int] = []
    repeated = file._repeated

    def counted(make: object, batch: int, *operands: Tensor) -> object:
        def once(n: int, *some: Tensor) -> object:
            made.append(n)
            return make(n, *some)  # type: ignore[operator]

        return repeated(once, batch, *operands)

    monkeypatch.setattr(file, "_repeated", counted)
    outputs(module, given)
    outputs(module, [x.expand(3, *x.shape[1:]).contiguous() for x in given])
    assert made == [1, 3]


@pytest.mark.parametrize("name", MIXERS)
def test_the_same_as_for_each_sequence(name: str) -> None:
    module, given = module_of(name)
    alone, each = ([x.clone().requires_grad_() for x in given] for _ in range(2))
    shared = outputs(module, alone)
    copies = [torch.cat([x] * (3 // len(x))) for x in each]
    apart = outputs(module, copies)
    torch.testing.assert_close(shared, apart, rtol=1e-12, atol=1e-12)
    slopes = [torch.autograd.grad(sum(y.square().sum() for y in ys), xs) for ys, xs in ((shared, alone), (apart, each))]
    torch.testing.assert_close(*slopes, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MIXERS)
def test_sequences_that_differ_do_not_share(name: str) -> None:
    module, given = module_of(name)
    own = [torch.cat([x, 2 * x, -x]) if len(x) == 1 else x for x in given]
    together = outputs(module, own)
    single = [outputs(module, [x[b : b + 1] for x in own]) for b in range(3)]
    torch.testing.assert_close(together, tuple(map(torch.cat, zip(*single, strict=True))), rtol=1e-12, atol=1e-12)
    none = outputs(module, [x[:0] if k == 0 else x for k, x in enumerate(given)])
    assert all(len(y) == 0 for y in none)


def test_mapped_and_traced() -> None:
    module, given = module_of("diagonal")
    x, *weights = given
    wanted = outputs(module, given)[0]
    mapped = torch.vmap(lambda row: outputs(module, [row[None], *weights])[0][0])(x)
    torch.testing.assert_close(mapped, wanted, rtol=1e-12, atol=1e-12)
    exported = torch.export.export(module, tuple(given))  # type: ignore[arg-type]
    torch.testing.assert_close(exported.module()(*given), wanted, rtol=1e-12, atol=1e-12)
