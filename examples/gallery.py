"""Every causal layer of the library, side by side: a few steps of training on two small tasks, one table, one plot.

    pip install -e ".[examples]"
    python examples/gallery.py                         # all layers; --layers GLA Mamba for some, --steps 400 for longer
    make gallery                                       # both of the above

Recall: pairs of a key and a value, then the keys once more in another order, each to be answered with its value (Arora et
al. 2023, arXiv:2312.04927). Digits: scikit-learn's bundled 8 x 8 images read as 64 steps of one grey value, the class
asked for after the last. A layer is any mixer of the library that has parameters, takes x[t,c], gives y[t,c] and can go
on step by step. The numbers show that a layer learns and what it costs, not which is best: a few steps on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn

import seqdsl
from seqdsl.diagnostics import SeqError
from seqdsl.ir.state import NotSteppable, state_record
from seqdsl.semantics import library

WIDTH = 32             # C
BATCH = 32             # B
PAIRS, KEYS, VALUES = 4, 12, 8

console = Console(highlight=False, soft_wrap=True)


# Layers ---------------------------------------------------------------------------------------------------------------


def layers() -> Iterator[tuple[str, seqdsl.Program]]:
    """(file, program) of every layer that reads x[t,c], writes y[t,c] and keeps a state."""
    for file in sorted(library()):
        for program in seqdsl.load_all(file):
            system = program.system()
            inputs, outputs = list(system.inputs()), [system.tensors[name] for name in system.outputs]
            if not system.params() or len(inputs) != 1 or len(outputs) != 1 or inputs[0].dtype != "real":
                continue
            if inputs[0].indices != outputs[0].indices or inputs[0].indices != (system.stream, "c"):
                continue
            try:
                state_record(system)
            except NotSteppable:
                continue
            yield file, program


def state_bytes(layer: nn.Module, length: int) -> int:
    """Bytes that one sequence keeps after `length` positions."""
    with torch.no_grad():
        _, state = layer(torch.zeros(1, length, WIDTH), return_state=True)
    pending, total = [state], 0
    while pending:
        entry = pending.pop()
        if isinstance(entry, dict):
            pending += entry.values()
        elif isinstance(entry, Tensor):
            total += entry.numel() * entry.element_size()
    return total


# Tasks ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """Batches of (inputs [B, T] or [B, T, 1], classes [B, T], -100 where nothing is asked), endless; and what to judge by."""

    symbols: int                     # 0: the inputs are numbers
    classes: int
    training: Iterator[tuple[Tensor, Tensor]]
    judged: tuple[Tensor, Tensor]


def recall_batch(count: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """[B, 3 PAIRS]: key, value, key, value, .., then the keys in another order."""
    keys = torch.stack([torch.randperm(KEYS, generator=draw)[:PAIRS] for _ in range(count)])
    values = torch.randint(VALUES, (count, PAIRS), generator=draw)
    order = torch.stack([torch.randperm(PAIRS, generator=draw) for _ in range(count)])
    shown = torch.stack([keys, KEYS + values], 2).flatten(1)
    asked, answers = keys.gather(1, order), values.gather(1, order)
    return torch.cat([shown, asked], 1), torch.cat([torch.full_like(shown, -100), answers], 1)


def recall() -> Task:
    draw = torch.Generator().manual_seed(0)
    judged = recall_batch(256, torch.Generator().manual_seed(1))
    return Task(KEYS + VALUES, VALUES, iter(lambda: recall_batch(BATCH, draw), None), judged)


def digits() -> Task:
    from sklearn.datasets import load_digits

    images, labels = (torch.as_tensor(x) for x in load_digits(return_X_y=True))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    images, labels = images[order].float().unsqueeze(-1) / 8 - 1, labels[order]
    asked = torch.full((len(labels), 64), -100)
    asked[:, -1] = labels
    draw = torch.Generator().manual_seed(0)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            chosen = torch.randint(256, len(labels), (BATCH,), generator=draw)
            yield images[chosen], asked[chosen]

    return Task(0, 10, batches(), (images[:256], asked[:256]))


# Model ----------------------------------------------------------------------------------------------------------------


class Model(nn.Module):
    """Each input with the one before it (so that one layer can tell a value's key), mixer, MLP, classes."""

    def __init__(self, mixer: nn.Module, task: Task) -> None:
        super().__init__()
        self.first = nn.Embedding(task.symbols, WIDTH) if task.symbols else nn.Linear(1, WIDTH)
        self.before = nn.Linear(WIDTH, WIDTH, bias=False)
        self.mixer, self.norms = mixer, nn.ModuleList(nn.RMSNorm(WIDTH) for _ in range(3))
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
        self.last = nn.Linear(WIDTH, task.classes)

    def forward(self, inputs: Tensor) -> Tensor:                                # [B, T, ..] -> [B, T, classes]
        x = self.first(inputs)
        x = x + self.before(F.pad(x, (0, 0, 1, -1)))
        x = x + self.mixer(self.norms[0](x))
        x = x + self.mlp(self.norms[1](x))
        return self.last(self.norms[2](x))


def train(model: Model, task: Task, steps: int, seconds: float) -> tuple[float, float]:
    """Accuracy where something is asked, and the median seconds of a step."""
    optimizer, took = torch.optim.AdamW(model.parameters(), lr=4e-3), []
    began = time.perf_counter()
    for _ in range(steps):
        start = time.perf_counter()
        inputs, classes = next(task.training)
        loss = F.cross_entropy(model(inputs).flatten(0, 1), classes.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        took.append(time.perf_counter() - start)
        if time.perf_counter() - began > seconds:
            break
    inputs, classes = task.judged
    with torch.no_grad():
        right = model(inputs).argmax(-1) == classes
    return float(right[classes >= 0].float().mean()), statistics.median(took)


# The whole ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """Of one layer: accuracies and milliseconds by task; parameters, and bytes of state, of the layer alone."""

    file: str
    name: str
    accuracy: dict[str, float]
    milliseconds: dict[str, float]
    parameters: int
    state: int


def built(program: seqdsl.Program, length: int) -> nn.Module:
    """The layer: at its defaults, else with a parameter as long as the sequence, else with two heads, where the default is
    so many channels for each that the width does not hold one."""
    first: SeqError | None = None
    for more in ({}, {"t": length}, {"H": 2}):
        try:
            return program.module(c=WIDTH, **more)
        except SeqError as error:
            first = first or error
    assert first is not None
    raise first


def measure(file: str, program: seqdsl.Program, options: argparse.Namespace) -> Result:
    accuracy, milliseconds = {}, {}
    for name, task in (("recall", recall()), ("digits", digits())):
        torch.manual_seed(0)
        layer = built(program, task.judged[0].shape[1])
        accuracy[name], seconds = train(Model(layer, task), task, options.steps, options.seconds)
        milliseconds[name] = 1e3 * seconds
    size = sum(p.numel() for p in layer.parameters())
    return Result(file, program.name, accuracy, milliseconds, size, state_bytes(layer, 64))


def show(results: list[Result]) -> None:
    """The table: best recall first."""
    table = Table(box=None, pad_edge=False)
    for column in ("file", "layer", "recall", "digits", "parameters", "ms a step", "state bytes"):
        table.add_column(column, justify="left" if column in ("file", "layer") else "right")
    for r in sorted(results, key=lambda r: -sum(r.accuracy.values())):
        table.add_row(r.file, r.name, *(f"{100 * a:.0f} %" for a in r.accuracy.values()), f"{r.parameters:,}",
                      f"{statistics.mean(r.milliseconds.values()):.1f}", f"{r.state:,}")
    console.print(table)


def plot(results: list[Result], path: str) -> None:
    """Accuracy on both tasks against the size of the state."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(13, 6), sharey=True)
    for axis, task in zip(axes, ("recall", "digits"), strict=True):
        for r in results:
            axis.scatter(max(r.state, 1), 100 * r.accuracy[task], s=14, color="tab:blue")
            axis.annotate(r.name, (max(r.state, 1), 100 * r.accuracy[task]), fontsize=6)
        axis.set(xscale="log", xlabel="bytes of state after 64 positions", title=task)
    axes[0].set_ylabel("accuracy, percent")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    console.print(f"plot: {path}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", metavar="NAME", help="only these mixers (default: all)")
    parser.add_argument("--steps", type=int, default=150, help="training steps of each layer on each task (default 150)")
    parser.add_argument("--seconds", type=float, default=20, help="end training after this long (default 20)")
    parser.add_argument("--plot", default="gallery.png", help="where the plot goes (default gallery.png)")
    options = parser.parse_args()

    chosen = [(f, p) for f, p in layers() if not options.layers or p.name in options.layers]
    if not chosen:
        console.print("no such layer: see `seqc list`", markup=False)
        return 2
    results, faults = [], []
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=len(chosen))
        for file, program in chosen:
            bar.update(task, advance=1, description=program.name)
            try:
                results.append(measure(file, program, options))
            except SeqError as error:
                faults.append(f"{program.name}: {error.diagnostics[0].message}")
                continue
            if not console.is_terminal:
                console.print(f"  {program.name}: " + ", ".join(f"{n} {100 * a:.0f} %" for n, a in results[-1].accuracy.items()))
    show(results)
    for fault in faults:
        console.print(f"left out: {fault}", markup=False)
    if results:
        plot(results, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
