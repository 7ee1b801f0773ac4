"""Every kernel that the library's mixers launch, compiled ahead of time for every target at its default configuration.

Run as a program it goes through the whole library in two processes, which takes hours, shows how far it is, prints a summary
and writes `library.txt`. `--targets` names some, `--rows FILE` keeps what was found, and what is there already is not done
again. With `--share 0/2` it is one of those processes: it prints one JSON object per mixer (the keys of its kernels) and
one per kernel and target (what it takes, or why it does not compile); so it does for some `--mixers`. Entry points
elsewhere: `found_in_processes`, `faults`, `table_text`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

from tests.backends.triton_kernel.ahead import SHARED, taken
from tests.backends.triton_kernel.processes import ROOT, compiling

TABLE = Path(__file__).with_name("library.txt")
PROCESSES = 2
ORDER = ("sm_90", "gfx942", "sm_80", "sm_100")  # which targets are compiled first
Row = dict[str, Any]


def rows_of(mixers: Collection[tuple[str, str]], targets: tuple[str, ...], known: Collection[str] = ()) -> Iterator[Row]:
    """What these mixers launch, and what each of those kernels takes, the first target of all mixers first; not what is
    `known` by key."""
    from tests.backends.triton_kernel.launched import FAMILIES, launched
    from tests.references.mixers import programs

    family = {name: what for file, what in FAMILIES.items() for name in _kernels_in(file)}
    done, later = set(known), []
    for file, mixer in mixers:
        try:
            found, failed = launched(programs(file)[mixer])
        except Exception as error:  # what keeps one mixer from being built must not keep the others from being compiled
            yield {"mixer": f"{file}.{mixer}", "kernels": [], "failed": {"all": f"{type(error).__name__}: {str(error)[:160]}"}}
            continue
        yield {"mixer": f"{file}.{mixer}", "kernels": [key for kernels in found.values() for key in kernels], "failed": failed}
        for one in (one for kernels in found.values() for key, one in kernels.items() if key not in done):
            done.add(one.key)
            if one.target == targets[0]:
                yield _row(one, family)
            elif one.target in targets:
                later.append(one)
    for one in sorted(later, key=lambda one: targets.index(one.target)):
        yield _row(one, family)


def _row(one: Any, family: dict[str, str]) -> Row:
    from triton.compiler import ASTSource

    what = "attention" if one.name.startswith("softmax ") else family.get(one.function.fn.__name__, "")
    row = {"key": one.key, "kernel": one.name, "target": one.target, "family": what}
    try:
        return {**row, **taken(ASTSource(one.function, one.signature, one.constants, one.attributes), one.target, one.options)}
    except Exception as error:  # of a compiler, or of an assembler
        return {**row, "error": f"{type(error).__name__}: {str(error)[-300:]}"}


def _kernels_in(file: str) -> list[str]:
    """The kernels of one file of the backend's support."""
    text = (ROOT / "backends" / "triton_kernel" / "support" / f"{file}.py").read_text(encoding="utf-8")
    return [line.split("(")[0].removeprefix("def ") for line in text.splitlines() if line.startswith("def ")]


def faults(rows: Iterable[Row]) -> list[str]:
    """What must not be: a kernel that does not compile, or wants more shared memory than there is; spills on sm_90 of matrix
    states, feedback of low rank and attention; a mixer that could not be run."""
    rows, found = list(rows), []
    owner = {key: row["mixer"] for row in rows if "mixer" in row for key in row["kernels"]}
    for row in rows:
        name = f"{row['kernel']} {row['target']} of {owner.get(row['key'])}" if "kernel" in row else row["mixer"]
        if row.get("failed"):
            found += [f"{name}: {part}: {why}" for part, why in row["failed"].items()]
        elif "error" in row:
            found.append(f"{name} does not compile: {row['error']}")
        elif "kernel" in row and row["shared"] > SHARED[row["target"]]:
            found.append(f"{name} wants {row['shared']} bytes of shared memory")
        elif "kernel" in row and row["target"] == "sm_90" and row["family"] and row["spilled"]:
            found.append(f"{name} spills {row['spilled']} bytes")
    return found


def summary(rows: Collection[Row]) -> str:
    """How many there are, and for each target how many compiled, failed, spill, or want too much shared memory."""
    kernels, mixers = [r for r in rows if "kernel" in r], [r for r in rows if "mixer" in r]
    lines = [f"{len(mixers)} mixers, {sum(bool(r['kernels']) for r in mixers)} of them with kernels, and of"
             f" {sum(bool(r['failed']) for r in mixers)} a part that could not be run without numbers",
             f"{'target':8}|{'compiled':>9}|{'failed':>7}|{'spilling':>9}|{'too much shared':>16}"]  # fmt: skip
    for target in ORDER:
        own = [r for r in kernels if r["target"] == target]
        made = [r for r in own if "error" not in r]
        lines.append(f"{target:8}|{len(made):9}|{len(own) - len(made):7}|{sum(bool(r['spilled']) for r in made):9}"
                     f"|{sum(r['shared'] > SHARED[target] for r in made):16}")  # fmt: skip
    return "\n".join(lines) + "\n"


def table_text(rows: Collection[Row]) -> str:
    """A line for each kind of kernel: how many mixers launch it, in how many distinct compilations, and the most that any
    takes on each target."""
    import triton

    kinds: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if "kernel" in row:
            kinds[row["kernel"]].append(row)
    name = {row["key"]: row["kernel"] for row in rows if "kernel" in row}
    users = Counter(kind for row in rows if "mixer" in row for kind in {name[key] for key in row["kernels"] if key in name})
    lines = [f"Triton {triton.__version__}; the most registers / bytes spilled (AMD: registers) / bytes of shared memory of any,"
             " and how many there are", *summary(rows).splitlines(),
             f"{'kernel':24}|{'mixers':>7}|" + "|".join(f"{target:>26}" for target in ORDER)]  # fmt: skip
    for kind, found in sorted(kinds.items()):
        cells = [_most([r for r in found if r["target"] == target]) for target in ORDER]
        lines.append(f"{kind:24}|{users[kind]:7}|" + "|".join(f"{cell:>26}" for cell in cells))
    return "\n".join(lines) + "\n"


def _most(found: list[Row]) -> str:
    made = [r for r in found if "error" not in r]
    if not made:
        return f"{len(found)} failed" if found else ""
    worst = " / ".join(str(max(r[what] for r in made)) for what in ("registers", "spilled", "shared"))
    return f"{worst}, {len(made)}" + (f", {len(found) - len(made)} failed" if len(found) > len(made) else "")


def _chosen(share: str | None, named: list[str]) -> list[tuple[str, str]]:
    """The mixers that are named, as `scan.gla.GLA`, or every so many, `0/2` being the first of two shares."""
    from tests.references.mixers import every_mixer

    if share is None:
        return [(file, mixer) for file, _, mixer in (name.rpartition(".") for name in named)]
    k, n = map(int, share.split("/"))
    return every_mixer()[k::n]


def _read(place: Path | None) -> list[Row]:
    return [json.loads(line) for line in place.read_text(encoding="utf-8").splitlines()] if place and place.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", default=list(ORDER), choices=ORDER)
    parser.add_argument("--share", help="print the rows of one share of the mixers, as 0/2")
    parser.add_argument("--mixers", nargs="+", help="print the rows of these, as scan.gla.GLA")
    parser.add_argument("--rows", type=Path, help="a file of rows that are there already, to which more are added")
    given = parser.parse_args()
    rows = _read(given.rows)
    if given.share or given.mixers:
        known = {row["key"] for row in rows if "key" in row}
        for row in rows_of(_chosen(given.share, given.mixers), tuple(given.targets), known):
            print(json.dumps(row), flush=True)
        return
    rows = [row for row in rows if "key" in row]  # which mixer launches what is found anew
    rows += found_in_processes(given.targets, given.rows)
    rows = _current({row.get("key") or row["mixer"]: row for row in rows}.values())
    TABLE.write_text(table_text(rows), encoding="utf-8")
    print(summary(rows), *faults(rows), sep="\n")


def _current(rows: Iterable[Row]) -> list[Row]:
    """Without kernels that no mixer launches any more."""
    rows = list(rows)
    keys = {key for row in rows for key in row.get("kernels", ())}
    return [row for row in rows if row.get("key") in {None, *keys}]


def found_in_processes(targets: Iterable[str] = ORDER, place: Path | None = None) -> Iterator[Row]:
    """The rows of the whole library, as two processes find them, kept in `place`."""
    options = ["--targets", *targets, *(["--rows", str(place)] if place else [])]
    commands = [[sys.executable, "-m", __spec__.name, *options, "--share", f"{k}/{PROCESSES}"] for k in range(PROCESSES)]
    running = [subprocess.Popen(c, cwd=ROOT, env=compiling(), stdout=subprocess.PIPE, text=True) for c in commands]
    count: Counter[str] = Counter()
    for line in _lines(running):
        row = json.loads(line)
        if place:
            with place.open("a", encoding="utf-8") as file:
                file.write(line)
        count[row.get("target", "mixers")] += 1
        print("\r" + ", ".join(f"{what} {n}" for what, n in count.items()), end="", file=sys.stderr, flush=True)
        yield row
    print(file=sys.stderr)
    assert not any(process.wait() for process in running), "a process has ended early"


def _lines(running: list[Any]) -> Iterator[str]:
    """The lines of several processes as they come."""
    found: Queue[str | None] = Queue()

    def read(process: Any) -> None:
        for line in process.stdout:
            found.put(line)
        found.put(None)

    for process in running:
        Thread(target=read, args=(process,), daemon=True).start()
    for _ in running:
        yield from iter(found.get, None)


if __name__ == "__main__":
    main()
