"""Convolutions and spectra: facts of the papers that no claim can state."""

from __future__ import annotations

import numpy as np
import torch

from .test_fixtures import close, example, run


def test_fnet_is_torch_s_transform_in_two_dimensions() -> None:
    inputs, _, _ = example("conv.fnet.fnet", 7)
    close(run("conv.fnet.fnet", inputs)["y"], torch.fft.fft2(torch.from_numpy(inputs["x"])).real.numpy())


def test_a_global_filter_is_torch_s_transforms() -> None:
    for T in (4, 5):
        inputs, _, _ = example("conv.global_filter.global_filter", T)
        x, K = (torch.from_numpy(inputs[name]) for name in "xK")
        spectrum = torch.fft.rfft2(x, dim=(0, 1), norm="ortho") * K
        expected = torch.fft.irfft2(spectrum, s=inputs["x"].shape[:2], dim=(0, 1), norm="ortho")
        close(run("conv.global_filter.global_filter", inputs)["y"], expected.numpy())


def test_gated_convolution_without_biases_is_a_polynomial_of_its_order_plus_one() -> None:
    inputs, params, sizes = example("conv.gn_conv.gn_conv", 4)
    bare = {name: 0 * value if name == "offset" or name.endswith("bias") else value for name, value in params.items()}
    y = run("conv.gn_conv.gn_conv", inputs, bare, sizes)["y"]
    twice = run("conv.gn_conv.gn_conv", {"x": 2 * inputs["x"]}, bare, sizes)["y"]
    close(twice, 2.0 ** (sizes["n"] + 1) * y)


def test_gated_convolution_moves_with_the_image_away_from_the_border() -> None:
    inputs, params, sizes = example("conv.gn_conv.gn_conv", 8)
    bare = {name: 0 * value if name.endswith("bias") else value for name, value in params.items()}
    x = np.zeros((8, 3, 8))
    x[2:5] = inputs["x"][:3]
    y, moved = (run("conv.gn_conv.gn_conv", {"x": np.roll(x, k, axis=0)}, bare, sizes)["y"] for k in (0, 2))
    close(moved[3:7], y[1:5])


def test_the_wavelet_transform_is_undone() -> None:
    for T in (1, 2, 5, 12):
        inputs, _, _ = example("conv.dtcwt.round_trip", T)
        close(run("conv.dtcwt.round_trip", inputs)["y"], inputs["x"])
        inputs, _, _ = example("conv.haar.subbands", T)
        bands = run("conv.haar.subbands", inputs)["y"]
        close(run("conv.haar.unsubbands", {"y": bands})["x"], inputs["x"])


def test_the_lowest_subband_of_a_constant_is_the_constant() -> None:
    bands = run("conv.haar.subbands", {"x": np.full((8, 8, 1), 3.0)})["y"]
    close(bands[0], np.full((2, 2, 1), 3.0))
    close(bands[1:], np.zeros((15, 2, 2, 1)))


def test_exchanging_the_branches_exchanges_the_answers() -> None:
    inputs, _, _ = example("conv.dimsum.swapped_attention", 5)
    o = run("conv.dimsum.swapped_attention", inputs)["o"]
    exchanged = {name: value[:, ::-1] for name, value in inputs.items()}
    close(run("conv.dimsum.swapped_attention", exchanged)["o"], o[:, ::-1])


def test_bilinear_upsampling_is_torch_s() -> None:
    inputs, params, sizes = example("conv.conv_upsample.bilinear", 5)
    image = torch.from_numpy(inputs["x"]).permute(2, 0, 1)[None]
    wide = torch.nn.functional.interpolate(image, scale_factor=sizes["S"], mode="bilinear", align_corners=False)
    close(run("conv.conv_upsample.bilinear", inputs, params, sizes)["y"], wide[0].permute(1, 2, 0).numpy())


def test_a_separable_block_shuffles_as_torch_does() -> None:
    inputs, params, sizes = example("conv.conv_upsample.SeparableBlock", 4)
    params = params | {"skip.weight": 0 * params["skip.weight"]}
    x, (C, S, _, F) = torch.from_numpy(inputs["x"]).permute(2, 0, 1)[None], params["up.weight"].shape
    taps = torch.from_numpy(params["near"]).permute(2, 0, 1)[:, None]
    near = torch.nn.functional.conv2d(x, taps, padding=1, groups=C)
    channels = torch.from_numpy(params["up.weight"]).permute(3, 1, 2, 0).reshape(F * S * S, C, 1, 1)
    bias = torch.from_numpy(params["up.bias"]).permute(2, 0, 1).reshape(-1)
    up = torch.nn.functional.pixel_shuffle(torch.nn.functional.conv2d(near, channels, bias), S)
    found = run("conv.conv_upsample.SeparableBlock", inputs, params, sizes)["y"]
    close(found, torch.nn.functional.gelu(up)[0].permute(1, 2, 0).numpy())


def test_a_group_sees_only_itself_without_the_linear_part() -> None:
    inputs, _, sizes = example("conv.joint_attention.joint_attention", 8)
    near = inputs | {"q2": 0 * inputs["q2"]}
    o = run("conv.joint_attention.joint_attention", near, {}, sizes)["o"]
    changed = {name: np.concatenate([value[:4], -value[4:]]) for name, value in near.items()}
    close(run("conv.joint_attention.joint_attention", changed, {}, sizes)["o"][:4], o[:4])


def test_the_mean_of_a_smooth_field_s_square_is_one() -> None:
    field = run("conv.random_field.random_field", example("conv.random_field.random_field", 8)[0])["field"]
    close((field**2).mean(axis=(0, 1)), np.ones(3), 1e-10)
    assert (field[1:] * field[:-1]).mean() > 0
