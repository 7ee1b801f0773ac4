"""Train a small byte-level language model on compiled layers, and hear it speak one byte at a time.

    python examples/train_text.py                      # the compiled GLA layer, then the compiled Mamba layer
    python examples/train_text.py --layers gla --seconds 600

The text is on every machine: the standard library's own Python sources, whole files held out. A model is two blocks of
residual, norm, mixer and residual, norm, MLP; only the mixer comes from seqdsl. It must predict the held-out bytes
better than a uniform guess and than a bigram count model, and generating with `step` must reproduce the logits of the
parallel form; otherwise the exit status is 1.
"""

from __future__ import annotations

import argparse
import math
import sys
import sysconfig
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn

import seqdsl

BYTES = 256
WINDOW = 256           # T: bytes a training example holds
BATCH = 8              # B
HELD_OUT = 64          # windows of WINDOW bytes that the models are judged by
PROMPT = "def read(self, path):\n    "
SAME_LOGITS = 1e-4     # how far stepping may be from the parallel form, largest absolute difference

console = Console(highlight=False, soft_wrap=True)


# Text -----------------------------------------------------------------------------------------------------------------


def standard_library() -> tuple[Tensor, Tensor]:
    """The bytes of the standard library's sources, (to learn from, held out): whole files, one split for all."""
    root = Path(sysconfig.get_paths()["stdlib"])
    left_out = {"test", "tests", "site-packages", "dist-packages", "__pycache__", "idlelib", "lib2to3", "encodings"}
    learn, judge = bytearray(), bytearray()
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not left_out & set(name.split("/")):
            (judge if zlib.crc32(name.encode()) % 10 == 0 else learn).extend(path.read_bytes())
    return torch.frombuffer(learn, dtype=torch.uint8).long(), torch.frombuffer(judge, dtype=torch.uint8).long()


def windows_of(text: Tensor, count: int) -> Tensor:
    """`count` windows spread evenly over the text: [count, WINDOW + 1]; the first byte of each is only read."""
    starts = torch.linspace(0, len(text) - WINDOW - 1, count).long()
    return text[starts[:, None] + torch.arange(WINDOW + 1)]


def bigram_bits(learn: Tensor, held_out: Tensor) -> float:
    """Bits per byte of add-k smoothed bigram counts; k is the one that suits the held-out bytes best, in its favour."""
    counts = torch.bincount(learn[:-1] * BYTES + learn[1:], minlength=BYTES * BYTES).double().view(BYTES, BYTES)
    before, after = held_out[:, :-1], held_out[:, 1:]
    return min(float(-torch.log2((counts[before, after] + k) / (counts.sum(1)[before] + k * BYTES)).mean())
               for k in (1e-3, 1e-2, 1e-1, 1.0))


# Model ----------------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x)); the mixer is a module that seqdsl generated."""

    def __init__(self, width: int, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer_norm, self.mlp_norm, self.mixer = nn.RMSNorm(width), nn.RMSNorm(width), mixer
        self.mlp = nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))

    def forward(self, x: Tensor) -> Tensor:                                     # [B, T, C] -> [B, T, C]
        x = x + self.mixer(self.mixer_norm(x))
        return x + self.mlp(self.mlp_norm(x))

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:                # [B, C] -> [B, C]
        y, state = self.mixer.step(self.mixer_norm(x), state)
        x = x + y
        return x + self.mlp(self.mlp_norm(x)), state


class ByteModel(nn.Module):
    """Embedding, blocks, norm, logits of the next byte; weights of the embedding and of the logits are one."""

    def __init__(self, width: int, mixers: list[nn.Module]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(BYTES, width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(width, mixer) for mixer in mixers)
        self.norm = nn.RMSNorm(width)

    def logits(self, x: Tensor) -> Tensor:                                      # [.., C] -> [.., BYTES]
        return F.linear(self.norm(x), self.embedding.weight)

    def forward(self, text: Tensor) -> Tensor:                                  # [B, T] -> [B, T, BYTES]
        x = self.embedding(text)
        for block in self.blocks:
            x = block(x)
        return self.logits(x)

    def init_state(self, batch: int) -> list[Any]:
        return [block.mixer.init_state(batch) for block in self.blocks]

    def step(self, byte: Tensor, state: list[Any]) -> tuple[Tensor, list[Any]]:  # [B] -> [B, BYTES]
        x, after = self.embedding(byte), []
        for block, before in zip(self.blocks, state, strict=True):
            x, new = block.step(x, before)
            after.append(new)
        return self.logits(x), after


LAYERS: dict[str, tuple[int, Callable[[int], nn.Module]]] = {                   # name -> width, module of that width
    "gla": (128, lambda width: seqdsl.load("gla", "GLA").module(c=width, H=4)),
    "mamba": (64, lambda width: seqdsl.load("mamba", "Mamba").module(c=width)),
}


# Training -------------------------------------------------------------------------------------------------------------


@contextmanager
def progress(name: str, total: int) -> Iterator[Callable[[int, float], None]]:
    """`report(step, bits)`: a bar on a terminal, ten plain lines elsewhere."""
    if not console.is_terminal:
        yield lambda step, bits: (console.print(f"  {name}: step {step} of {total}, {bits:.3f} bits per byte")
                                  if step * 10 // total > (step - 1) * 10 // total else None)
        return
    columns = (TextColumn("  {task.description}"), BarColumn(), TextColumn("{task.completed} of {task.total} steps"),
               TextColumn("{task.fields[bits]:.3f} bits per byte"), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(name, total=total, bits=math.log2(BYTES))
        yield lambda step, bits: bar.update(task, completed=step, bits=bits)


def train(model: ByteModel, name: str, learn: Tensor, steps: int, seconds: float) -> int:
    """Fit the model; the rate falls to zero at `steps` or when `seconds` are over. Returns the steps taken."""
    rate, warmup = 4e-3, 20
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    draw = torch.Generator().manual_seed(0)
    began, smooth = time.perf_counter(), math.log2(BYTES)
    with progress(name, steps) as report:
        for step in range(1, steps + 1):
            done = max(step / steps, (time.perf_counter() - began) / seconds)
            if done > 1:
                return step - 1
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, step / warmup) * (0.02 + 0.98 * math.cos(done * math.pi / 2))
            starts = torch.randint(len(learn) - WINDOW, (BATCH, 1), generator=draw)
            batch = learn[starts + torch.arange(WINDOW + 1)]                    # [B, T + 1]
            loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            smooth += (loss.item() / math.log(2) - smooth) / min(step, 20)
            report(step, smooth)
    return steps


@torch.no_grad()
def held_out_bits(model: ByteModel, held_out: Tensor) -> float:
    """Bits per byte over the last WINDOW bytes of each window: the bytes that the bigram model is judged by too."""
    losses = [F.cross_entropy(model(part[:, :-1]).flatten(0, 1), part[:, 1:].flatten()) * len(part)
              for part in held_out.split(BATCH)]
    return float(sum(losses)) / len(held_out) / math.log(2)


# Generation -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def generate(model: ByteModel, prompt: Tensor, length: int, temperature: float = 0.9) -> tuple[Tensor, Tensor]:
    """Continue `prompt` [T] by `length` bytes, stepping: the bytes [T + length] and the logits after each of them."""
    draw = torch.Generator().manual_seed(0)
    state, text, logits = model.init_state(1), prompt.tolist(), []
    for position in range(len(prompt) + length):
        if position == len(text):
            text.append(int(torch.multinomial((logits[-1] / temperature).softmax(-1), 1, generator=draw)))
        step_logits, state = model.step(torch.tensor([text[position]]), state)
        logits.append(step_logits[0])
    return torch.tensor(text), torch.stack(logits)


def readable(text: Tensor) -> str:
    """Bytes as text; what is no printable character becomes a middle dot."""
    return "".join(c if c.isprintable() or c == "\n" else "·" for c in bytes(text.tolist()).decode("utf-8", "replace"))


def show_sample(model: ByteModel) -> float:
    """Print a sample, and return how far its logits are from those of the parallel form over the same bytes."""
    began = time.perf_counter()
    text, stepped = generate(model, torch.tensor(list(PROMPT.encode())), length=WINDOW)
    took = time.perf_counter() - began
    with torch.no_grad():
        parallel = model(text[None])[0]
    difference = float((stepped - parallel).abs().max())
    sample = "\n".join(f"  | {line}" for line in readable(text).splitlines())
    console.print(f"  a sample by step, {len(text) / took:.0f} bytes per second; {len(PROMPT)} bytes are given:")
    console.print(sample, markup=False)
    console.print(f"  step and the parallel form: logits differ by at most {difference:.1e}, allowed {SAME_LOGITS:.0e}")
    return difference


# The whole ------------------------------------------------------------------------------------------------------------


def run(name: str, learn: Tensor, held_out: Tensor, *, steps: int, seconds: float) -> tuple[float, float]:
    """Build, train, judge and sample one model: held-out bits per byte, and step's distance from the parallel form."""
    torch.manual_seed(0)
    width, layer = LAYERS[name]
    model = ByteModel(width, [layer(width) for _ in range(2)])
    size = sum(parameter.numel() for parameter in model.parameters())
    console.print(f"{name}: {len(model.blocks)} blocks of width {width}, {size:,} parameters")
    began = time.perf_counter()
    taken = train(model, name, learn, steps, seconds)
    bits = held_out_bits(model, held_out)
    console.print(f"  {taken} steps in {time.perf_counter() - began:.0f} s, held out: {bits:.3f} bits per byte")
    return bits, show_sample(model)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", choices=LAYERS, default=list(LAYERS))
    parser.add_argument("--steps", type=int, default=500, help="training steps of each model (default 500)")
    parser.add_argument("--seconds", type=float, default=70, help="end training after this long (default 70)")
    options = parser.parse_args()

    learn, judge = standard_library()
    held_out = windows_of(judge, HELD_OUT)
    uniform, bigram = math.log2(BYTES), bigram_bits(learn, held_out)
    console.print(f"text: {len(learn) / 1e6:.1f} MB of Python to learn from, {len(judge) / 1e6:.1f} MB held out, "
                  f"of which {held_out[:, 1:].numel():,} bytes are predicted")
    results = {name: run(name, learn, held_out, steps=options.steps, seconds=options.seconds)
               for name in options.layers}

    console.print("\nheld-out bits per byte, less is better")
    rows = {"uniform": uniform, "bigram counts": bigram} | {name: bits for name, (bits, _) in results.items()}
    for name, bits in rows.items():
        console.print(f"  {name:14} {bits:6.3f}  {'#' * round(bits * 6)}", markup=False)
    faults = [f"{name} does not beat the baselines"
              for name, (bits, _) in results.items() if not bits < min(uniform, bigram)]
    faults += [f"{name}: step differs from the parallel form by {difference:.1e}"
               for name, (_, difference) in results.items() if not difference < SAME_LOGITS]
    for fault in faults:
        console.print(f"failed: {fault}", markup=False)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
