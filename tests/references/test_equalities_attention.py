"""What the papers say of the attention family and the language has no claim for; and torch's own functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from .attention import (
    binary_hash,
    nystrom,
    performer,
    positions,
    positions_in_space,
    qr_stochastic,
    rope,
    sinkhorn,
    top_k,
)
from .test_fixtures import close, example, run


def torched(*arrays: Any) -> list[torch.Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(x)) for x in arrays]


def heads_first(x: np.ndarray) -> np.ndarray:
    return x.transpose(1, 0, 2)


# Special cases and limits -------------------------------------------------------------------------------------------


def test_nystrom_with_a_landmark_for_each_token_is_attention() -> None:
    inputs, _, _ = example("attention.softmax.attention_full")
    inputs = {name: value[:7] for name, value in inputs.items()}
    o = run("attention.softmax.attention_full", inputs)["o"]
    close(nystrom.nystrom(inputs, {}, {"L": 7, "N": 25})["o"], o, 1e-4)
    rough = nystrom.nystrom(inputs, {}, {"L": 7, "N": 6})["o"]
    assert np.abs(rough - o).max() > 1e-4   # six steps do not get there


def test_sinkhorn_tends_to_a_doubly_stochastic_matrix() -> None:
    a = np.random.default_rng(0).standard_normal((6, 6))
    errors = [np.abs(sinkhorn.half_steps(a, count).sum(axis=0) - 1).max() for count in (1, 3, 21, 101)]
    assert errors == sorted(errors, reverse=True) and errors[0] > 0.1 and errors[-1] < 1e-12


def test_what_the_orthogonal_factor_does_not_see() -> None:
    """An upper triangular factor on the right changes nothing; an exchange of columns does."""
    rng = np.random.default_rng(0)
    A, R = rng.standard_normal((5, 5)), np.triu(rng.uniform(0.5, 1, (5, 5)))
    P = qr_stochastic.orthonormal(A) ** 2
    close(qr_stochastic.orthonormal(A @ R) ** 2, P, 1e-10)
    close(qr_stochastic.orthonormal(A[[1, 0, 2, 3, 4]]) ** 2, P[[1, 0, 2, 3, 4]], 1e-10)
    assert np.abs(qr_stochastic.orthonormal(A[:, [1, 0, 2, 3, 4]]) ** 2 - P).max() > 0.01


def test_linformer_with_the_identity_is_attention() -> None:
    inputs, _, _ = example("attention.softmax.attention_full")
    one = np.eye(len(inputs["k"]))
    close(run("attention.linformer.linformer", inputs | {"E": one, "F": one})["o"],
          run("attention.softmax.attention_full", inputs)["o"])


def test_random_features_tend_to_the_exponential() -> None:
    rng = np.random.default_rng(0)
    x, y = 0.7 * rng.standard_normal((2, 4))
    w = rng.standard_normal((200_000, 4))
    assert abs(performer.favor(x, w) @ performer.favor(y, w) / np.exp(x @ y / 2) - 1) < 0.02


def test_rotations_keep_lengths_and_the_two_pairings_are_one_up_to_the_order_of_features() -> None:
    q, k = np.random.default_rng(0).standard_normal((2, 8))
    close(np.linalg.norm(positions_in_space.rope_2d(q, 3, 5)), np.linalg.norm(q))
    close(positions.rope(q, 7) @ positions.rope(k, 4), positions.rope(q, 3) @ k)
    order = [0, 4, 1, 5, 2, 6, 3, 7]
    close(positions.rope_half(q, 3)[order], positions.rope(q[order], 3))


def test_slopes_and_buckets_as_published() -> None:
    assert [positions.alibi_slope(h, 8) for h in range(8)] == [2.0 ** -(h + 1) for h in range(8)]
    close(np.array([positions.alibi_slope(h, 3) for h in range(3)]), np.array([2.0**-4, 2.0**-8, 2.0**-2]))
    found = [positions.t5_bucket(n) for n in (-1000, -127, -64, -16, -8, -7, -1, 0, 1, 7, 8, 16, 64, 1000)]
    assert found == [15, 15, 14, 10, 8, 7, 1, 0, 17, 23, 24, 26, 30, 31]


def test_the_channel_masks_mix_to_the_sum_of_their_weights() -> None:
    inputs, _, _ = example("attention.top_k.top_k")
    ones = inputs | {"v": np.ones_like(inputs["v"])}
    close(top_k.top_k(ones, {}, {})["y"], np.full(inputs["q"].shape, inputs["w"].sum()))


def test_codes_that_agree_weigh_most() -> None:
    code = np.array([[[1.0, 1.0]], [[1.0, 1.0]], [[-1.0, -1.0]]])
    close(binary_hash.agreement(code, np.array([[[0.0]], [[1.0]], [[10.0]]]))[0, 0], np.array([(5 * 1 + 1 * 10) / 11]))


def test_a_constant_input_tells_urpe_the_position() -> None:
    """Softmax attention with a relative bias gives the same everywhere; the factor outside makes rows differ."""
    inputs, _, _ = example("attention.urpe.urpe")
    same = inputs | {name: np.repeat(inputs[name][:1], len(inputs[name]), axis=0) for name in ("q", "k", "v")}
    plain = run("attention.urpe.relative", {n: v for n, v in same.items() if n != "c"})["o"]
    close(plain, np.repeat(plain[:1], len(plain), axis=0))
    assert np.abs(np.diff(run("attention.urpe.urpe", same)["o"], axis=0)).max() > 0.1


def test_a_pool_does_not_notice_that_its_set_is_doubled() -> None:
    inputs, _, _ = example("attention.set_pool.att_sets")
    twice = {name: np.concatenate([value, value]) for name, value in inputs.items()}
    close(run("attention.set_pool.att_sets", twice)["y"], run("attention.set_pool.att_sets", inputs)["y"])


def test_forecasts_follow_the_scale_of_their_history() -> None:
    inputs, params, sizes = example("attention.variates.Variates", 30)
    scale, shift = np.array([2.0, 0.5, 3.0, 1.0]), np.array([1.0, -2.0, 0.0, 5.0])
    moved = run("attention.variates.Variates", {"x": inputs["x"] * scale + shift}, params, sizes)["y"]
    close(moved, run("attention.variates.Variates", inputs, params, sizes)["y"] * scale + shift, 1e-4)


# torch --------------------------------------------------------------------------------------------------------------


def test_torch_attention_with_grouped_heads_and_a_bias() -> None:
    sdpa = torch.nn.functional.scaled_dot_product_attention
    inputs, _, _ = example("attention.gqa.gqa")
    q, k, v = torched(*(heads_first(inputs[name]) for name in ("q", "k", "v")))
    found = sdpa(q[None], k[None], v[None], is_causal=True, enable_gqa=True)[0].numpy()
    close(heads_first(found), run("attention.gqa.gqa", inputs)["o"])
    inputs, _, _ = example("attention.alibi.linear_bias")
    q, k, v = torched(*(heads_first(inputs[name]) for name in ("q", "k", "v")))
    T = q.shape[1]
    away = np.subtract.outer(np.arange(T), np.arange(T))
    bias = np.where(away < 0, -np.inf, -inputs["m"][:, None, None] * away)
    found = sdpa(q[None], k[None], v[None], attn_mask=torch.from_numpy(bias)[None])[0].numpy()
    close(heads_first(found), run("attention.alibi.linear_bias", inputs)["o"])


@pytest.mark.parametrize("T", [1, 5])
def test_torch_encoder_layer_is_that_of_variates(T: int) -> None:
    D, H, F = 6, 2, 5
    layer = torch.nn.TransformerEncoderLayer(D, H, F, dropout=0, activation="gelu", batch_first=True).double().eval()
    weight, bias = layer.self_attn.in_proj_weight.detach().numpy(), layer.self_attn.in_proj_bias.detach().numpy()
    params = {}
    for name, rows, offset in zip("qkv", np.split(weight, 3), np.split(bias, 3), strict=True):
        params |= {f"{name}.weight": rows.T.reshape(D, H, D // H), f"{name}.bias": offset.reshape(H, D // H)}
    maps = {"hidden": layer.linear1, "y": layer.linear2}
    params |= {f"{n}.weight": m.weight.detach().numpy().T for n, m in maps.items()}
    params |= {f"{n}.bias": m.bias.detach().numpy() for n, m in maps.items()}
    out = layer.self_attn.out_proj
    params |= {"z.weight": out.weight.detach().numpy().T.reshape(H, D // H, D), "z.bias": out.bias.detach().numpy()}
    x = np.random.default_rng(0).standard_normal((T, D))
    with torch.no_grad():
        expected = layer(torch.from_numpy(x)[None])[0].numpy()
    close(run("attention.variates.Encoder", {"x": x}, params, {"H": H, "D": D // H, "F": F})["y"], expected)


def test_rotated_attention_on_one_row_is_that_of_a_sequence() -> None:
    """A grid of one column turns half of the features only."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((5, 2, 4)) for _ in range(3))
    still = np.zeros_like(q)
    grid = {"q": np.concatenate([q, still], axis=2)[:, None], "k": np.concatenate([k, still], axis=2)[:, None]}
    found = rope.rope_attention_2d(grid | {"x": v[:, None]}, {}, {})["o"][:, 0]
    turned = [np.array([[positions.rope(x, t) for x in row] for t, row in enumerate(z)]) for z in (q, k)]
    score = np.einsum("thd,shd->hts", *turned) / np.sqrt(8)
    p = np.exp(score) / np.exp(score).sum(axis=2, keepdims=True)
    close(found, np.einsum("hts,she->the", p, v))
