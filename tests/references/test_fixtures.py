"""The references against the corpus, against torch.nn, and against each other where a paper says they are equal."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
VALUES = HERE.parent / "corpus" / "values"
LIBRARY = HERE.parent.parent / "library"
FILES = sorted(path for path in HERE.glob("*/*.py") if path.stem != "__init__")

# fixture of the corpus -> reference
FIXTURES = {
    "aaren.aaren": "scan.aaren.aaren",
    "alibi.alibi": "attention.alibi.alibi",
    "atlas.atlas": "memory.atlas.atlas",
    "attention.attention": "attention.softmax.attention",
    "attention.attention_full": "attention.softmax.attention_full",
    "combiner.combiner": "attention.combiner.combiner",
    "conv_ssm.conv_ssm": "scan.conv_ssm.conv_s5",
    "delta_product.delta_product": "memory.delta_product.delta_product",
    "delta_product.gated_delta": "memory.gated_delta_rule.gated_delta_rule",
    "ema.ema": "scan.ema.ema",
    "ema.ema_corrected": "scan.ema.ema_corrected",
    "ema.ema_damped": "scan.ema.ema_damped",
    "gat.gat": "graph.gat.gat",
    "gla.GLA": "scan.gla.GLA",
    "gla.gla": "scan.gla.gla",
    "hadamard.walsh": "tokens.hadamard.walsh",
    "hgrn.hgrn2": "scan.hgrn.hgrn2",
    "lcm.lcm": "rnn.lcm.lcm",
    "lightnet.lightnet_full": "scan.lightnet.lightnet_full",
    "log_linear.log_linear": "scan.log_linear.log_linear",
    "log_linear.log_linear_recurrent": "scan.log_linear.log_linear_recurrent",
    "long_conv.long_conv_fft": "conv.long_conv.long_conv_fft",
    "lstm.lstm": "rnn.lstm.lstm",
    "mesa.mesa": "memory.mesa.mesa",
    "mla.mla": "attention.mla.mla",
    "polyphase.anchor": "vision.polyphase.anchor",
    "retention.retention": "scan.retention.retention",
    "retention.retention_parallel": "scan.retention.retention_quadratic",
    "rpe_kernel.rpe_dense": "attention.rpe_kernel.rpe_dense",
    "rpe_kernel.rpe_fft": "attention.rpe_kernel.rpe_fft",
    "rwkv.rwkv6": "scan.rwkv6.rwkv6",
    "s4d.s4d": "scan.s4d.s4d",
    "s4d.s4d_conv": "scan.s4d.s4d_conv",
    "short_conv.ShortConv": "conv.short_conv.ShortConv",
    "simple_gla.simple_gla": "scan.simple_gla.simple_gla",
    "simple_gla.simple_gla_parallel": "scan.simple_gla.simple_gla_quadratic",
    "sinkhorn.sinkhorn": "attention.sinkhorn.sinkhorn",
    "sliding.stick_breaking": "attention.stick_breaking.stick_breaking_product",
    "titans.titans": "memory.titans.titans",
    "titans.titans_mlp": "memory.titans.titans_mlp",
    "tome.tome": "tokens.merge.token_merging",
}


def module(name: str) -> ModuleType:
    return import_module(f".{name}", __package__)


def run(name: str, inputs: Any, params: Any = None, sizes: Any = None) -> dict[str, np.ndarray]:
    file, _, mixer = name.rpartition(".")
    return getattr(module(file), mixer)(inputs, params or {}, sizes or {})


def example(name: str, T: int = 7) -> tuple[Any, Any, Any]:
    file, _, mixer = name.rpartition(".")
    return getattr(module(file), f"{mixer}_example")(np.random.default_rng(0), T)


def tensor(entry: Any) -> np.ndarray:
    """A tensor of a fixture: complex numbers are pairs, infinities strings, scalars bare."""
    if not isinstance(entry, dict):
        return np.asarray(entry, float)
    if entry["dtype"] == "complex":
        pairs = np.asarray(entry["data"], float)
        return pairs[..., 0] + 1j * pairs[..., 1]
    return np.asarray(entry["data"], {"real": float, "int": int, "bool": bool}[entry["dtype"]])


def close(actual: np.ndarray, expected: np.ndarray, tolerance: float = 1e-12) -> None:
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("fixture", FIXTURES)
def test_fixture(fixture: str) -> None:
    path = VALUES / f"{fixture}.json"
    if not path.exists():
        pytest.skip(f"no fixture: {path} is absent")
    data = json.loads(path.read_text())
    tensors = {part: {name: tensor(entry) for name, entry in data[part].items()} for part in ("inputs", "params")}
    outputs = run(FIXTURES[fixture], tensors["inputs"], tensors["params"], data["sizes"])
    for name, entry in data["outputs"].items():
        close(outputs[name], tensor(entry))


def mixers(path: Path) -> list[tuple[str, str]]:
    """Each mixer's name and header, from the text of a library file."""
    text = (LIBRARY / path.parent.name / f"{path.stem}.seq").read_text()
    return re.findall(r"^mixer (\w+)\((.*?)\)\s*->", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_mixer_has_a_reference_with_its_inputs_and_options(path: Path) -> None:
    found = module(f"{path.parent.name}.{path.stem}")
    for mixer, header in mixers(path):
        inputs, _, sizes = getattr(found, f"{mixer}_example")(np.random.default_rng(1), 5)
        formal, _, options = header.partition(";")
        bare = re.sub(r"\[[^]]*\]|:\s*\w+", "", formal)
        assert set(re.findall(r"\w+", bare)) == set(inputs), mixer
        assert set(re.findall(r"(\w+)\s*(?:=|,|$)", re.sub(r"=[^,]*", "=", options))) == set(sizes), mixer


@pytest.mark.parametrize("T", [1, 2, 9])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_examples_give_finite_outputs(path: Path, T: int) -> None:
    found = module(f"{path.parent.name}.{path.stem}")
    for mixer, _ in mixers(path):
        drawn = getattr(found, f"{mixer}_example")(np.random.default_rng(2), T)
        for name, value in getattr(found, mixer)(*drawn).items():
            assert value.dtype == float and np.isfinite(value).all(), (mixer, name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_claims_to_be_causal_is(path: Path) -> None:
    found = module(f"{path.parent.name}.{path.stem}")
    text = (LIBRARY / path.parent.name / f"{path.stem}.seq").read_text()
    for body in text.split("\nmixer ")[1:] + ([text[6:]] if text.startswith("mixer ") else []):
        mixer = re.match(r"\w+", body)[0]
        if not re.search(r"claim causal\b(?!\()", body):
            continue
        inputs, params, sizes = getattr(found, f"{mixer}_example")(np.random.default_rng(3), 8)
        before = getattr(found, mixer)(inputs, params, sizes)
        rng = np.random.default_rng(4)
        over_time = [name for name, value in inputs.items() if value.shape[:1] == (8,) and name != "w"] or list(inputs)
        later = {n: np.concatenate([v[:5], rng.permutation(v[5:])]) if n in over_time else v for n, v in inputs.items()}
        for name, value in getattr(found, mixer)(later, params, sizes).items():
            close(value[:5], before[name][:5])


# Equalities that the papers state ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("scan.retention.retention", "scan.retention.retention_quadratic"),
        ("scan.simple_gla.simple_gla", "scan.simple_gla.simple_gla_quadratic"),
        ("scan.ema.ema_damped", "scan.ema.ema_damped_conv"),
        ("scan.mlstm.mlstm", "scan.mlstm.mlstm_plain"),
        ("attention.linear.linear_attention", "attention.linear.linear_attention_quadratic"),
    ],
)
def test_two_forms_agree(left: str, right: str) -> None:
    inputs, params, sizes = example(left)
    close(run(left, inputs, params, sizes)["o" if "ema" not in left else "y"],
          run(right, inputs, params, sizes)["o" if "ema" not in left else "y"])


def test_retention_and_simple_gla_are_gla_with_constant_decays() -> None:
    inputs, _, _ = example("scan.retention.retention")
    T, H, D = inputs["q"].shape
    decay = np.log(1 - 2.0 ** (-5 - np.arange(H)))
    close(run("scan.retention.retention", inputs)["o"],
          run("scan.gla.gla", inputs | {"g": np.broadcast_to(decay[:, None], (T, H, D))})["o"])
    inputs, _, _ = example("scan.simple_gla.simple_gla")
    g = np.repeat(inputs["a"][:, :, None], D, axis=2)
    close(run("scan.simple_gla.simple_gla", inputs)["o"], run("scan.gla.gla", inputs | {"g": g})["o"])


def test_ssd_is_simple_gla() -> None:
    inputs, _, _ = example("scan.ssd.ssd")
    x, dt, A, B, C = (inputs[name] for name in ("x", "dt", "A", "B", "C"))
    per_group = x.shape[1] // B.shape[1]
    k, q = (np.repeat(value, per_group, axis=1) for value in (B, C))
    substituted = {"q": q * np.sqrt(q.shape[2]), "k": k, "v": dt[:, :, None] * x, "a": dt * A}
    close(run("scan.ssd.ssd", inputs)["y"], run("scan.simple_gla.simple_gla", substituted)["o"])


def test_rwkv6_reads_what_stood_before_the_decay() -> None:
    """As a sum over the past: between s and t stand the decays of s + 1 .. t - 1, one fewer than in gla."""
    inputs, _, _ = example("scan.rwkv6.rwkv6")
    r, k, v, w = (inputs[name] for name in ("r", "k", "v", "w"))
    expected = np.zeros((*r.shape[:2], v.shape[2]))
    for t in range(len(r)):
        for s in range(t + 1):
            weight = inputs["u"] if s == t else np.exp(w[s + 1 : t].sum(axis=0))
            expected[t] += (r[t] * weight * k[s]).sum(axis=-1, keepdims=True) * v[s]
    close(run("scan.rwkv6.rwkv6", inputs)["o"], expected)


def test_s4d_and_s5_are_convolutions() -> None:
    inputs, params, sizes = example("scan.s4d.s4d")
    A = -np.exp(params["re_log"]) + 1j * params["omega"]
    a = np.exp(np.exp(params["log_dt"])[:, None] * A)
    convolved = run("scan.s4d.s4d_conv", inputs | {"a": a, "b": (a - 1) / A, "C": params["C"]})["y"]
    close(run("scan.s4d.s4d", inputs, params, sizes)["y"], convolved + params["D"] * inputs["u"])
    inputs, _, _ = example("scan.s5.s5")
    a = np.exp(inputs["dt"] * inputs["A"])
    b = ((a - 1) / inputs["A"])[:, None] * inputs["B"]
    convolved = run("scan.s5.s5_conv", inputs | {"a": a, "b": b})["y"]
    close(run("scan.s5.s5", inputs)["y"], convolved + inputs["D"] * inputs["u"])


def test_ema_in_both_directions_is_two_emas() -> None:
    inputs, _, _ = example("scan.ema.ema_both")
    ahead, back = ({name: value[r] for name, value in inputs.items() if name != "x"} for r in range(2))
    forward = run("scan.ema.ema_damped", ahead | {"x": inputs["x"]})["y"]
    backward = run("scan.ema.ema_damped", back | {"x": inputs["x"][::-1]})["y"][::-1]
    close(run("scan.ema.ema_both", inputs)["y"], forward + backward)


def test_lightnet_is_a_softmax_over_time_for_each_feature() -> None:
    inputs, _, _ = example("scan.lightnet.lightnet")
    q, k, v = (inputs[name] for name in ("q", "k", "v"))
    expected = np.zeros((*q.shape[:2], v.shape[2]))
    for t in range(len(q)):
        p = np.exp(k[: t + 1]) / np.exp(k[: t + 1]).sum(axis=0)
        expected[t] = np.einsum("hd,shd,she->he", q[t], p, v[: t + 1])
    close(run("scan.lightnet.lightnet", inputs)["o"], expected)
    close(run("scan.lightnet.lightnet_full", inputs)["o"][-1], expected[-1])


def test_hgrn_with_a_complex_state() -> None:
    inputs, _, _ = example("scan.hgrn.hgrn_complex")
    outputs = run("scan.hgrn.hgrn_complex", inputs)
    S = np.zeros(inputs["theta"].shape, complex)
    for t, f in enumerate(inputs["f"]):
        S = f * np.exp(1j * inputs["theta"]) * S + (1 - f) * (inputs["a"][t] + 1j * inputs["b"][t])
        close(outputs["x"][t] + 1j * outputs["y"][t], S)


def test_delta_rules() -> None:
    inputs, _, _ = example("memory.gated_delta_rule.gated_delta_rule")
    o = run("memory.delta_rule.delta_rule", inputs)["o"]
    close(run("memory.gated_delta_rule.gated_delta_rule", inputs | {"a": np.zeros_like(inputs["a"])})["o"], o)
    asked = inputs | {"q": inputs["k"], "beta": np.ones_like(inputs["beta"])}
    close(run("memory.gated_delta_rule.gated_delta_rule", asked)["o"], inputs["v"], 1e-11)   # what was just written


def test_a_window_as_long_as_the_text_is_attention() -> None:
    inputs, _, _ = example("attention.sliding_window.sliding_window")
    o = run("attention.softmax.attention", inputs)["o"]
    close(run("attention.sliding_window.sliding_window", inputs, {}, {"W": len(o)})["o"], o)
    no_sink = inputs | {"sink": np.full(inputs["q"].shape[1], -np.inf)}
    close(run("attention.sliding_window.sliding_window_sink", no_sink, {}, {"W": len(o), "F": 0})["o"], o)


def test_long_conv_by_fft() -> None:
    inputs, _, _ = example("conv.long_conv.long_conv", 9)
    spectrum = np.fft.rfft(inputs["x"], 18, axis=0) * np.fft.rfft(inputs["w"], 18, axis=0)
    close(run("conv.long_conv.long_conv", inputs)["y"], np.fft.irfft(spectrum, 18, axis=0)[:9])


# torch.nn -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mixer", "gates"), [("rnn.gru.gru", "rzg"), ("rnn.lstm.lstm", "ifgu")])
def test_torch_recurrent(mixer: str, gates: str) -> None:
    import torch

    inputs, params, sizes = example(mixer, 11)
    layer = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[mixer.rpartition(".")[2]](5, sizes["N"]).double()
    with torch.no_grad():
        for ours, theirs in (("", "ih"), ("_2", "hh")):
            stacked = np.concatenate([params[f"{gate}{ours}.weight"].T for gate in gates])
            getattr(layer, f"weight_{theirs}_l0").copy_(torch.from_numpy(stacked))
            bias = np.concatenate([params[f"{gate}{ours}.bias"] for gate in gates])
            getattr(layer, f"bias_{theirs}_l0").copy_(torch.from_numpy(bias))
        expected = layer(torch.from_numpy(inputs["x"]))[0].numpy()
    close(run(mixer, inputs, params, sizes)["h"], expected)


def test_torch_attention() -> None:
    import torch

    T, H, D = 7, 3, 2
    rng = np.random.default_rng(0)
    x = rng.standard_normal((T, H * D))
    params = {f"{name}.weight": rng.standard_normal((H * D, H, D)) for name in "qkv"}
    params["y.weight"] = rng.standard_normal((H, D, H * D))
    layer = torch.nn.MultiheadAttention(H * D, H, bias=False).double()
    with torch.no_grad():
        rows = np.concatenate([params[f"{name}.weight"].reshape(H * D, H * D).T for name in "qkv"])
        layer.in_proj_weight.copy_(torch.from_numpy(rows))
        layer.out_proj.weight.copy_(torch.from_numpy(params["y.weight"].reshape(H * D, H * D).T))
        tokens = torch.from_numpy(x)
        future = torch.ones(T, T, dtype=torch.bool).triu(1)
        expected = layer(tokens, tokens, tokens, attn_mask=future, need_weights=False)[0].numpy()
    close(run("attention.softmax.MultiHeadAttention", {"x": x}, params)["y"], expected)


def test_torch_convolution() -> None:
    import torch

    inputs, params, sizes = example("conv.short_conv.ShortConv")
    filters = torch.from_numpy(params["y.weight"][:, None, ::-1].copy())   # torch lists the oldest tap first
    padded = torch.nn.functional.pad(torch.from_numpy(inputs["x"].T.copy())[None], (sizes["W"] - 1, 0))
    plain = torch.nn.functional.conv1d(padded, filters, torch.from_numpy(params["y.bias"]), groups=5)
    close(run("conv.short_conv.ShortConv", inputs, params, sizes)["y"], torch.nn.functional.silu(plain)[0].T.numpy())


def test_torch_norms_and_activations() -> None:
    import torch

    numerics = module("numerics")
    x = np.random.default_rng(0).standard_normal((4, 6))
    there = torch.from_numpy(x)
    close(numerics.gelu(x), torch.nn.functional.gelu(there).numpy())
    close(numerics.silu(x), torch.nn.functional.silu(there).numpy())
    close(numerics.softplus(x), torch.nn.functional.softplus(there).numpy(), 1e-7)   # torch is linear above 20
    close(numerics.log_sigmoid(x), torch.nn.functional.logsigmoid(there).numpy())
    close(numerics.layer_norm(x), torch.nn.functional.layer_norm(there, (6,), eps=1e-6).numpy())
    close(numerics.rms_norm(x), torch.nn.functional.rms_norm(there, (6,), eps=1e-6).numpy())
