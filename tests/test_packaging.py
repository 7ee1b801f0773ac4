"""What is installed is what stands in the repository: the list of packages, the version, and the wheel at work."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDER_OF = CONFIG["tool"]["setuptools"]["package-dir"]


def run(*command: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command that must not see the checkout: no PYTHONPATH, another working directory."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True,
                          timeout=300)
    assert not check or done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built with the setuptools that is installed.

    Built from a copy, so that no `build/` or `*.egg-info` of this or an earlier state takes part.
    """
    folder = tmp_path_factory.mktemp("wheel")
    _copy_sources(folder / "source")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
        "--wheel-dir", folder, folder / "source", cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def _copy_sources(target: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        target.mkdir(exist_ok=True)
        (target / name).write_bytes((ROOT / name).read_bytes())
    for top in set(FOLDER_OF.values()):
        for file in (ROOT / top).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                copy = target / file.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(file.read_bytes())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment's `bin` with the wheel in it; the dependencies are lent by this one, seqdsl is not."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder / "env", with_pip=False, symlinks=os.name != "nt")
    paths = sysconfig.get_paths(vars={"base": str(folder / "env"), "platbase": str(folder / "env")}, scheme="venv")
    site, programs = Path(paths["purelib"]), Path(paths["scripts"])
    interpreter = programs / Path(sys.executable).name
    run(sys.executable, "-m", "pip", "--python", interpreter, "install", "--quiet", "--no-deps", "--no-index", wheel,
        cwd=folder)
    # A .pth line appends a folder, and the .pth and editable finders inside that folder are not read:
    # the wheel's seqdsl comes first, and an editable install of this checkout is not seen at all.
    (site / "lent.pth").write_text("".join(f"{path}\n" for path in dict.fromkeys(
        sysconfig.get_path(kind) for kind in ("purelib", "platlib"))), encoding="utf-8")
    return programs


def test_every_folder_of_code_is_a_listed_package() -> None:
    found = set()
    for package, folder in FOLDER_OF.items():
        for marker in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join((package, *marker.parent.relative_to(ROOT / folder).parts)))
    assert found == set(CONFIG["tool"]["setuptools"]["packages"])


def test_every_module_stands_in_a_package() -> None:
    homeless = [str(file.relative_to(ROOT)) for folder in set(FOLDER_OF.values())
                for file in (ROOT / folder).rglob("*.py") if not (file.parent / "__init__.py").is_file()]
    assert not homeless


def test_the_changelog_names_the_version() -> None:
    assert CONFIG["project"]["version"] in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_package_knows_its_version() -> None:
    import seqdsl

    assert seqdsl.__version__ == CONFIG["project"]["version"]


def test_the_wheel_holds_code_and_data_under_one_name(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"seqdsl"}
    expected = {f"seqdsl/{file.relative_to(ROOT)}" for folder in ("grammar", "library", "backends")
                for suffix in ("py", "lark", "seq", "tmpl") for file in (ROOT / folder).rglob(f"*.{suffix}")}
    expected |= {str(file.relative_to(ROOT)) for file in (ROOT / "seqdsl").rglob("*.py")}
    assert expected <= set(names)


def test_the_installed_wheel_checks_a_library_mixer(installed: Path, tmp_path: Path) -> None:
    where = run(installed / "python", "-c", "import seqdsl; print(seqdsl.__file__)", cwd=tmp_path).stdout
    assert ROOT not in Path(where.strip()).resolve().parents
    assert installed.parent in Path(where.strip()).parents
    done = run(installed / "seqc", "check", "gla", cwd=tmp_path)
    assert "gla" in done.stdout


def test_the_installed_wheel_compiles_a_library_mixer(installed: Path, tmp_path: Path) -> None:
    run(installed / "seqc", "compile", "gla", "-o", tmp_path / "out", cwd=tmp_path)
    assert (tmp_path / "out" / "gla.py").is_file()


def test_a_checkout_runs_without_being_installed(installed: Path) -> None:
    where = run(installed / "python", "-c", "import seqdsl.backends; print(seqdsl.backends.__file__)", cwd=ROOT).stdout
    assert Path(where.strip()).resolve() == ROOT / "backends" / "__init__.py"
