"""Every code of the language has a row, every row an example with that one fault, every example a message worth reading.

`tests/errors/CODE.seq` is the example of the table, `tests/golden/errors/CODE.txt` its message; both are written by
`pytest --update-golden`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from seqdsl.diagnostics import SeqError
from seqdsl.semantics import load_system
from seqdsl.semantics.faults import SEMANTICS
from seqdsl.syntax.faults import SYNTAX

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FAULTS = {**SYNTAX, **SEMANTICS}
EXAMPLES = {code: fault.example for code, fault in FAULTS.items() if 0 < len(fault.example) < 20_000}
# Codes that no text alone shows: they are about several files, or the sizes, inputs and parameters of a run.
WITHOUT_EXAMPLE = {
    "size-mismatch",
    "missing-size",
    "missing-input",
    "unknown-parameter",
    "import-cycle",
    "bad-ir-text",
}
UNKNOWN = ("name", "index", "tensor", "size", "field", "function")  # `SeqError(f"unknown-{what}"`


def raised(*packages: str) -> dict[str, str]:
    """Each code in the sources with a file that raises it."""
    found: dict[str, str] = {}
    for package in packages:
        for path in sorted((ROOT / "seqdsl" / package).glob("*.py")):
            text = path.read_text(encoding="utf-8")
            for code in re.findall(r'(?:SeqError|SizeError|Diagnostic|fault)\(\s*"([^"]*)"', text):
                found.setdefault(code, path.name)
            for first, second in re.findall(r'SizeError\(\s*"([^"]*)" if [^,]* else "([^"]*)"', text):
                found.setdefault(first, path.name)
                found.setdefault(second, path.name)
            if '(f"unknown-{what}"' in text:
                found.update({f"unknown-{what}": path.name for what in UNKNOWN})
    return found


def failure(path: Path) -> SeqError:
    with pytest.raises(SeqError) as caught:
        load_system(path)
    return caught.value


def test_every_code_that_is_raised_has_one_row() -> None:
    codes = raised("semantics", "ir")
    assert len(codes) > 60
    assert {code: place for code, place in codes.items() if code not in FAULTS} == {}
    assert set(SYNTAX) & set(SEMANTICS) == set()
    assert set(SEMANTICS) - set(codes) == set(), "rows that nothing raises"


def test_explanations() -> None:
    assert {code for code, fault in SEMANTICS.items() if not fault.example} == WITHOUT_EXAMPLE
    for code, fault in SEMANTICS.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code)
        assert fault.explanation[0].isupper() or fault.explanation[0] == "`"
        assert fault.explanation.endswith(".") and "\n" not in fault.explanation


def test_no_file_without_a_row() -> None:
    assert {p.stem for p in HERE.glob("*.seq")} == set(EXAMPLES)
    assert {p.stem for p in (HERE.parent / "golden" / "errors").glob("*.txt")} == set(EXAMPLES)


@pytest.mark.parametrize("code", EXAMPLES)
def test_message(code: str, request: pytest.FixtureRequest) -> None:
    path, golden = HERE / f"{code}.seq", HERE.parent / "golden" / "errors" / f"{code}.txt"
    content = EXAMPLES[code].encode("utf-8", "surrogateescape")
    if request.config.getoption("--update-golden"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert path.read_bytes() == content, "the example has changed: run pytest --update-golden and read the diff"
    error = failure(path)
    assert [found.code for found in error.diagnostics] == [code]
    for found in error.diagnostics:
        assert found.message[0] in "`0123456789" or found.message[0].islower() or found.message.startswith("U+")
        assert not found.message.endswith(".") and not found.help.endswith((".", "!")) and "\n" not in found.message
        assert code in ("unknown-mixer", "not-utf8") or found.span is not None
    text = str(error).replace(str(path), path.name) + "\n"
    if request.config.getoption("--update-golden"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_the_example_of_the_design(tmp_path: Path) -> None:
    path = tmp_path / "gla.seq"
    path.write_text(
        "mixer gla(q[t,h,d], k[t,h,d], v[t,h,e], g[t,h,d]) -> o[t,h,e]:\n"
        "    S[t,h,d,e] = exp(g) * S[t-1] + k * v\n\n    o[t,h,e] = q * S\n",
        encoding="utf-8",
    )
    assert (
        str(failure(path)).replace(str(path), path.name)
        == """\
error[stray-index]: the right side varies along `d`, the left side does not
 --> gla.seq:4:16
  |
4 |     o[t,h,e] = q * S
  |                ^ `q` is q[t,h,d]
  = help: sum over it, `sum[d] q * S`, or add `d` on the left"""
    )


def test_faults_of_several_equations_are_reported_together() -> None:
    with pytest.raises(SeqError) as caught:
        load_system("mixer f(x[t,c]) -> y[t]:\n    z[t] = x * gate\n    y[t] = swish(z)\n")
    assert [d.code for d in caught.value.diagnostics] == ["stray-index", "unknown-function"]
