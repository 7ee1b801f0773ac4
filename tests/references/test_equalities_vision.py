"""What the papers of library/vision, graph and tokens say is equal, or is not, and the language does not claim."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from .graph.gsm import merged
from .numerics import Array
from .test_fixtures import close, example, module, run


def window_roll(q: Array, k: Array, v: Array, bias: Array, w: int, shift: int) -> Array:
    """Swin as published, but with -inf: roll, cut, mask between labels, roll back."""
    rows, columns, heads, _ = q.shape
    label = np.zeros((rows, columns))
    if shift:
        cuts = [[slice(0, n - w), slice(n - w, n - shift), slice(n - shift, n)] for n in (rows, columns)]
        for n, (a, b) in enumerate((a, b) for a in cuts[0] for b in cuts[1]):
            label[a, b] = n
    q, k, v = (np.roll(t, (-shift, -shift), (0, 1)) for t in (q, k, v))
    o = np.zeros((rows, columns, heads, v.shape[-1]))
    place = np.arange(w * w)
    dp, dq = (p[:, None] - p + w - 1 for p in (place // w, place % w))
    for a in range(0, rows, w):
        for b in range(0, columns, w):
            own = slice(a, a + w), slice(b, b + w)
            parts = label[own].ravel()
            mask = torch.from_numpy(np.where(parts[:, None] == parts, 0, -np.inf))
            for h in range(heads):
                one, two, three = (torch.from_numpy(t[own][:, :, h].reshape(w * w, -1).copy())[None] for t in (q, k, v))
                scores = mask + torch.from_numpy(bias[h][dp, dq])
                found = torch.nn.functional.scaled_dot_product_attention(one, two, three, scores[None], scale=1.0)
                o[own][:, :, h] = found[0].numpy().reshape(w, w, -1)
    return np.roll(o, (shift, shift), (0, 1))


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_windows_cut_at_the_border_are_the_published_roll(shift: int) -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((9, 6, 2, 3)) for _ in range(3))
    bias = rng.standard_normal((2, 5, 5))
    found = run("vision.swin.window_attention", {"q": q, "k": k, "v": v, "bias": bias}, {}, {"w": 3, "shift": shift})
    close(found["o"], window_roll(q, k, v, bias, 3, shift))


def test_overlapping_windows_are_those_of_unfold() -> None:
    rng = np.random.default_rng(0)
    w, halo, heads = 4, 2, 2
    q, k, v = (rng.standard_normal((8, 12, heads, 3)) for _ in range(3))
    bias = rng.standard_normal((heads, 2 * w + halo - 1, 2 * w + halo - 1))
    sizes = {"w": w, "halo": halo}
    found = run("vision.hat.overlapping_attention", {"q": q, "k": k, "v": v, "bias": bias}, {}, sizes)["o"]
    size = w + halo
    for h in range(heads):
        keys, values = (
            torch.nn.functional.unfold(
                torch.from_numpy(t[:, :, h]).permute(2, 0, 1)[None], size, padding=halo // 2, stride=w
            )[0].reshape(3, size * size, 2, 3)
            for t in (k, v)
        )
        for i, j in ((0, 0), (3, 5), (7, 11), (5, 2)):
            m, n = np.divmod(np.arange(size * size), size)
            offset = bias[h][i % w - m + size - 1, j % w - n + size - 1]
            scores = torch.from_numpy(q[i, j, h]) @ keys[:, :, i // w, j // w] + torch.from_numpy(offset)
            close(found[i, j, h], (values[:, :, i // w, j // w] @ scores.softmax(0)).numpy())


def test_dynamic_local_attention_is_of_degree_two() -> None:
    inputs, params, sizes = example("vision.dynamic_local.DynamicLocal")
    once, doubled = (run("vision.dynamic_local.DynamicLocal", {"x": s * inputs["x"]}, params, sizes)["y"] for s in (1, 2))
    close(doubled, 4 * once)


def test_the_axial_form_of_manhattan_attention_is_another_function() -> None:
    inputs, _, _ = example("vision.manhattan.manhattan")
    full, axial = (run(f"vision.manhattan.{name}", inputs)["o"] for name in ("manhattan", "manhattan_axial"))
    assert np.abs(full - axial).max() > 0.01


@pytest.mark.parametrize("shift", [(1, 0), (0, 2), (5, 4)])
def test_anchoring_undoes_a_shift_up_to_whole_patches(shift: tuple[int, int]) -> None:
    x = np.random.default_rng(0).standard_normal((9, 6, 2))
    anchored = module("vision.polyphase").anchored
    before, after = anchored(x, 3), anchored(np.roll(x, shift, (0, 1)), 3)
    whole = [np.roll(before, (3 * a, 3 * b), (0, 1)) for a in range(3) for b in range(2)]
    assert sum(np.array_equal(after, candidate) for candidate in whole) == 1


def test_groups_meet_through_their_latents_alone() -> None:
    """Without attention between latents a group knows nothing of the others; with it, it does."""
    inputs, params, sizes = example("vision.interleaved.FIT")
    sizes = {**sizes, "causal_groups": 0}
    changed = {**inputs, "x": np.concatenate([inputs["x"][:1], 2 * inputs["x"][1:]])}
    apart = {n: 0 * a if n in ("z1.u.weight", "z2.u.weight") else a for n, a in params.items()}
    name = "vision.interleaved.FIT"
    close(run(name, changed, apart, sizes)["y"][0], run(name, inputs, apart, sizes)["y"][0])
    assert np.abs(run(name, changed, params, sizes)["y"][0] - run(name, inputs, params, sizes)["y"][0]).max() > 1e-3


def test_a_row_and_a_column_of_axial_attention_reach_the_whole_picture() -> None:
    inputs, params, _ = example("vision.axial.AxialRow", 4)

    def reached(*names: str) -> int:
        def both(x: Array) -> Array:
            for name in names:
                x = run(f"vision.axial.{name}", {"x": x}, params)["y"]
            return x

        moved = inputs["x"].copy()
        moved[0, 1] *= 2
        return int((np.abs(both(moved) - both(inputs["x"])).max(axis=-1) > 1e-9).sum())

    assert reached("AxialRow") == 4
    assert reached("AxialRow", "AxialColumnMasked") == 16


def test_an_adjacency_is_the_list_of_its_edges() -> None:
    inputs, _, _ = example("graph.gat.gat")
    adj = inputs.pop("adj") | np.eye(7, dtype=bool)
    dst, src = np.nonzero(adj)
    close(run("graph.gat.gat_edges", inputs | {"src": src, "dst": dst})["y"], run("graph.gat.gat", inputs | {"adj": adj})["y"])


def test_each_round_of_clustering_at_least_halves_the_number() -> None:
    sim = np.random.default_rng(0).standard_normal((23, 23))
    clusters = [frozenset([n]) for n in range(23)]
    while len(clusters) > 1:
        fewer = merged(clusters, sim + sim.T)
        assert len(fewer) <= len(clusters) // 2
        clusters = fewer


def test_a_stitch_fits_what_is_linear() -> None:
    rng = np.random.default_rng(0)
    x, W = rng.standard_normal((30, 4)), rng.standard_normal((4, 3))
    close(run("tokens.stitch.stitch_fit", {"x1": x, "x2": x @ W})["W"], W, 1e-6)


def test_merging_keeps_the_mass() -> None:
    inputs, _, sizes = example("tokens.merge.token_merging")
    found = run("tokens.merge.token_merging", inputs, {}, sizes)
    close(found["new_size"].sum(keepdims=True), inputs["size"].sum(keepdims=True))
    close(found["new_size"] @ found["y"], inputs["size"] @ inputs["x"])
