"""What every test shares: Hypothesis profiles, the `gpu` and `deep` markers, golden files.

Entry points: `--deep` for the long searches, `--shard 3/24` for the part of the library that is tried on 25 examples,
`--update-golden` to rewrite the files under `tests/golden/`, and the fixture `golden`: `golden(text)` holds when
`tests/golden/<test file>/<test>.txt` is exactly `text`.
"""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from seqdsl.ir import validate

HERE = Path(__file__).resolve().parent

# The files that take longest, longest first: with them begun first, no process is left with one of them at the end.
LONGEST = [f"test_{name}.py" for name in
           "checked recurrences counts steps interpreted sequences reads faults random plugin hostile".split()]

# The validator runs after every pass in the tests, in those processes that are started, and in this one, whose pytest has
# imported our plugin, and the switch with it, before it read this file.
os.environ.setdefault("SEQDSL_VALIDATE", "1")
validate.VALIDATE = int(os.environ["SEQDSL_VALIDATE"])

# "ci" gives the same examples on every machine and in every run; "deep" searches afresh each time.
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=50, print_blob=False, database=None,
                          suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("deep", deadline=None, max_examples=2000, print_blob=True,
                          suppress_health_check=[HealthCheck.too_slow])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--deep", action="store_true", help="run the long searches too, with fresh random examples")
    parser.addoption("--shard", default="1/24", help="the part of the library's mixers tried on 25 examples; 1/1 is all")
    parser.addoption("--update-golden", action="store_true", help="write the files under tests/golden/, compare none")


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("deep" if config.getoption("--deep") else "ci")
    gc.set_threshold(50_000, 20, 20)  # terms and texts are many, and die without the help of a collector


def pytest_collection_finish() -> None:
    gc.freeze()  # tests and what they were made of live to the end: a collector need not look at them again


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
    if not config.getoption("--deep"):
        for item in items:
            if item.get_closest_marker("deep"):
                item.add_marker(pytest.mark.skip(reason="a long search: run with --deep"))
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu and not _has_gpu():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a gpu: no CUDA device here"))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(autouse=True)
def _same_draws_in_every_run() -> None:
    """Modules draw their parameters: the same ones, whichever tests ran before in the same process."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Compare a text with the file named after the test, or write that file under `--update-golden`."""
    name = re.sub(r"[^\w.=-]+", "_", request.node.name).strip("_")
    path = HERE / "golden" / request.path.stem / f"{name}.txt"

    def check(text: str) -> None:
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        assert path.is_file(), f"no golden file {path.relative_to(HERE)}: run pytest --update-golden and read the diff"
        assert text == path.read_text(encoding="utf-8")

    return check
