"""Kernels compiled ahead of time, without a GPU, and what the compiler says they take.

Run as a program it prints one JSON object per line for the targets named: triton decides when it is imported whether it
interprets, so a process of its own compiles. `--table` writes the committed table instead. Entry points elsewhere:
`report`, `rows`, `answer`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from tests.backends.triton_kernel.processes import Rows, compile_in

TARGETS = {"sm_80": ("cuda", 80, 32), "sm_90": ("cuda", 90, 32), "sm_100": ("cuda", 100, 32), "gfx942": ("hip", "gfx942", 64)}
SHARED = {"sm_80": 166_912, "sm_90": 232_448, "sm_100": 232_448, "gfx942": 65_536}  # bytes a block may have
TABLE = Path(__file__).with_name("resources.txt")
PRODUCTS = ("wgmma.mma_async", "tcgen05.mma", "mma.sync", "v_mfma")
# One whose first operand is in registers, which not every ptxas keeps until they are read (`support/assembler.py`).
OF_REGISTERS = "wgmma-of-registers"


def compiled(
    kernel: Any, types: dict[str, str], constants: dict[str, Any], target: str,
    sixteens: tuple[str, ...] = ("D", "H", "K", "V"), **options: int,
) -> dict[str, Any]:  # fmt: skip
    """Registers, spilled bytes, shared memory and kinds of tensor-core products of one kernel; `sixteens` are multiples of 16."""
    from triton.compiler import ASTSource

    if target.startswith("gfx"):  # which has no tf32
        constants = {name: "ieee" if value in ("tf32", "tf32x3") else value for name, value in constants.items()}
    names = [p.name for p in kernel.params]
    signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in names}
    aligned = {
        (i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if signature[n].startswith("*") or n in sixteens
    }
    return taken(ASTSource(kernel, signature, constants, aligned), target, options)


def taken(source: Any, target: str, options: dict[str, int]) -> dict[str, Any]:
    """The same of what is compiled, with all that a launch says of it."""
    import triton
    from triton.backends.compiler import GPUTarget

    from backends.triton_kernel.support.assembler import _assemble_with

    _assemble_with(_assemblers()[target == "sm_90"])
    made = triton.compile(source, target=GPUTarget(*TARGETS[target]), options=options)
    text = made.asm.get("ptx") or made.asm["amdgcn"]
    used = _amd(text) if target.startswith("gfx") else _nvidia(made.asm["cubin"])
    products = [p for p in PRODUCTS if p in text]
    if re.search(r"wgmma\.mma_async\S* \{[^}]*\}, \{", text):
        products.append(OF_REGISTERS)
    return {**used, "shared": made.metadata.shared, "products": products}


@cache
def _assemblers() -> tuple[str, str]:
    """The ptxas of Triton, and what takes its place where kernels are launched on a Hopper GPU."""
    import triton

    from backends.triton_kernel.support.assembler import _assembles_soundly

    own = triton.knobs.nvidia.ptxas.path
    _assembles_soundly()
    return own, triton.knobs.nvidia.ptxas.path


def _nvidia(cubin: bytes) -> dict[str, int]:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        shown = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True).stdout
    registers, stack = re.search(r"REG:(\d+)", shown), re.search(r"STACK:(\d+)", shown)
    assert registers and stack, shown
    return {"registers": int(registers[1]), "spilled": int(stack[1])}


def _amd(text: str) -> dict[str, int]:
    found = {name: int(count) for name, count in re.findall(r"\.(\w+_count):\s*(\d+)", text)}
    return {"registers": found["vgpr_count"], "spilled": found["vgpr_spill_count"] + found["sgpr_spill_count"]}


def report(targets: tuple[str, ...], names: tuple[str, ...] = ()) -> Rows:
    """`kernel target` -> what it takes, compiled in a process of its own."""
    return compile_in("ahead", ",".join(targets), *names)


def answer(
    compiled: Callable[[list[str]], Iterable[dict[str, Any]]], reported: Callable[[tuple[str, ...]], Rows], place: Path,
    targets: tuple[str, ...],
) -> None:  # fmt: skip
    """What a module with written kernels does, run as a program, if it is asked how they compile, and nothing else then:
    `--compile` prints rows for the targets named, `--table` writes the committed table."""
    if sys.argv[1:] == ["--table"]:
        place.write_text(table_text(reported(targets)), encoding="utf-8")
    elif sys.argv[1:2] == ["--compile"]:
        for row in compiled(sys.argv[2].split(",")):
            print(json.dumps(row), flush=True)
    else:
        return
    sys.exit()


def check_fit(made: Rows) -> None:
    """Kernels for sm_90 keep all in registers, and fit the shared memory that there is."""
    assert {name: row["spilled"] for name, row in made.items() if row["spilled"]} == {}
    assert {name: row["shared"] for name, row in made.items() if row["shared"] > SHARED["sm_90"]} == {}


def check_table(path: Path, made: Rows) -> None:
    """A table has every kernel on every target, and says the same of all."""
    table = rows(path.read_text(encoding="utf-8"))
    assert set(table) == {f"{name.rpartition(' ')[0]} {target}" for name in made for target in TARGETS}
    for name, row in table.items():
        assert row["shared"] <= SHARED[name.rpartition(" ")[2]] and not row["spilled"], name


def rows(text: str) -> dict[str, dict[str, Any]]:
    """The table's rows: `kernel target` -> what it takes."""
    found = {}
    for line in text.splitlines()[2:]:
        name, *numbers, products = (cell.strip() for cell in line.split("|"))
        registers, spilled, shared = map(int, numbers)
        found[name] = {"registers": registers, "spilled": spilled, "shared": shared, "products": products.split()}
    return found


def table_text(found: dict[str, dict[str, Any]]) -> str:
    """The rows as the text that is committed."""
    import triton

    lines = [f"Triton {triton.__version__}, bfloat16, K = V = 128; shared memory and what is spilled in bytes (AMD: registers)",
             f"{'kernel':38}|{'registers':>10}|{'spilled':>8}|{'shared':>8}| products"]
    for name, row in found.items():
        lines.append(f"{name:38}|{row['registers']:10}|{row['spilled']:8}|{row['shared']:8}| {' '.join(row['products'])}".rstrip())
    return "\n".join(lines) + "\n"


def main(targets: list[str], names: list[str]) -> None:
    from .kernels import ELSEWHERE, KERNELS

    for name, (kernel, types, constants, options) in KERNELS.items():
        if names and name not in names:
            continue
        for target in targets:
            other = ELSEWHERE.get(name, {}).get(target, {})
            fixed = {**constants, **{k: v for k, v in other.items() if k not in options}}
            launch = {k: n for k, v in options.items() if (n := other.get(k, v))}  # 0 is the compiler's own
            print(json.dumps({"name": f"{name} {target}", **compiled(kernel, types, fixed, target, **launch)}), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--table"]:
        TABLE.write_text(table_text(report(tuple(TARGETS))), encoding="utf-8")
    else:
        main(sys.argv[1].split(","), sys.argv[2:])
