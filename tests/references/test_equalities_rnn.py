"""Recurrent networks against torch.nn, and facts of the papers that no claim can state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import seqdsl

from .test_fixtures import LIBRARY, close, example, run


def filled(layer: torch.nn.Module, params: dict[str, np.ndarray], gates: str, ends: dict[str, str]) -> torch.nn.Module:
    """A layer of torch.nn with our weights; `ends` says which suffix of its names has which of our prefixes."""
    with torch.no_grad():
        for end, prefix in ends.items():
            for ours, theirs in (("", "ih"), ("_2", "hh")):
                for kind in ("weight", "bias"):
                    parts = [params[f"{prefix}{gate}{ours}.{kind}"].T for gate in gates]
                    getattr(layer, f"{kind}_{theirs}_l0{end}").copy_(torch.from_numpy(np.concatenate(parts)))
    return layer


def test_elman_is_torch_s() -> None:
    inputs, params, sizes = example("rnn.elman.elman", 11)
    layer = filled(torch.nn.RNN(5, sizes["N"]).double(), params, "h", {"": ""})
    close(run("rnn.elman.elman", inputs, params)["h"], layer(torch.from_numpy(inputs["x"]))[0].detach().numpy())


def test_both_directions_are_torch_s() -> None:
    inputs, params, sizes = example("rnn.brnn.brnn", 11)
    layer = torch.nn.RNN(5, sizes["N"], bidirectional=True).double()
    for end, name in (("", "f"), ("_reverse", "b")):
        filled(layer, params, name, {end: ""})
    close(run("rnn.brnn.brnn", inputs, params)["y"], layer(torch.from_numpy(inputs["x"]))[0].detach().numpy())


def test_reversing_the_tokens_swaps_the_directions() -> None:
    inputs, params, _ = example("rnn.brnn.brnn", 7)
    swapped = {{"f": "b", "b": "f"}[name[0]] + name[1:]: value for name, value in params.items()}
    y = run("rnn.brnn.brnn", inputs, params)["y"]
    back = run("rnn.brnn.brnn", {"x": inputs["x"][::-1]}, swapped)["y"][::-1]
    close(np.roll(back, y.shape[1] // 2, axis=1), y)


def test_the_tree_of_a_binary_gru_is_its_meaning() -> None:
    """Symmetric in two arguments; in three the order tells, and the compiler has the numbers."""
    program = seqdsl.load(Path(LIBRARY) / "rnn" / "lcm.seq")
    verdicts = program.check().to_dict()["monoids"]["gru_tree"]
    assert verdicts["commutative"]["verdict"] == "proved" and verdicts["associative"]["verdict"] == "refuted"
    inputs, params, sizes = example("rnn.lcm.lcm", 2)
    swapped = {"x": inputs["x"][::-1]}
    close(run("rnn.lcm.lcm", swapped, params, sizes)["y"], run("rnn.lcm.lcm", inputs, params, sizes)["y"])
    inputs, params, sizes = example("rnn.lcm.lcm", 3)
    turned = {"x": np.roll(inputs["x"], 1, axis=0)}
    gap = run("rnn.lcm.lcm", turned, params, sizes)["y"] - run("rnn.lcm.lcm", inputs, params, sizes)["y"]
    assert np.abs(gap).max() > 1e-3


def test_two_cells_have_one_path_in_d_mode() -> None:
    """With transitions of 1 a sum over paths counts them: binomials without the mode, ones or zeros with it."""
    ones = np.ones((4, 4, 1))
    token = {"q": ones[..., None], "k": np.zeros((4, 4, 1, 1)), "v": ones[..., None], "direct": 0 * ones}
    token["k"][0, 0] = 1
    gates = dict.fromkeys(("sr", "sd", "trl", "tru", "tdl", "tdu", "ml", "mu"), ones)
    counted = run("rnn.plstm_2d.plstm_2d", token | gates)["o"][..., 0, 0]
    assert counted[3, 3] == 20
    del gates["tdl"]
    assert set(np.unique(run("rnn.plstm_2d.plstm_2d_d", token | gates)["o"])) == {0.0, 1.0}


def test_shares_of_an_edge_sum_to_less_than_one() -> None:
    inputs, _, _ = example("rnn.plstm_dag.propagation", 9)
    assert np.abs(run("rnn.plstm_dag.propagation", inputs)["T"]).sum(axis=0).max() < 1


@pytest.mark.parametrize("mixer", ["para_lstm", "para_gru"])
def test_cells_with_diagonal_recurrences_are_solved_by_newton(mixer: str) -> None:
    inputs, params, sizes = example(f"rnn.{mixer}.{mixer}", 40)
    program = seqdsl.load(Path(LIBRARY) / "rnn" / f"{mixer}.seq")
    module = program.module(form="newton", c=5, **sizes).double()
    module.load_state_dict({name: torch.as_tensor(value) for name, value in params.items()})
    found = module(torch.from_numpy(inputs["x"])[None]).detach().numpy()[0]
    close(found, run(f"rnn.{mixer}.{mixer}", inputs, params)["h"], 1e-9)
