"""Generated text as a module: written to a cache folder of its own, so that tracebacks and compilers find its lines."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from threading import get_ident
from types import ModuleType
from typing import Any

from seqdsl.config import private_folder

from .names import safe


def load_text(source: str) -> ModuleType:
    """A generated file as a module; the same text gives the same module."""
    stem = "seqdsl_generated_" + hashlib.sha256(source.encode()).hexdigest()[:16]
    if stem not in sys.modules:
        path = _folder() / f"{stem}.py"
        if not path.is_file() or path.read_bytes() != source.encode():
            scratch = path.with_suffix(f".{os.getpid()}.{get_ident()}.tmp")
            scratch.write_bytes(source.encode())
            scratch.replace(path)
        spec = importlib.util.spec_from_file_location(stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[stem] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[stem]
            raise
    return sys.modules[stem]


@cache
def _folder() -> Path:
    """Of the name by which tools know code that is not the user's own: Hypothesis parses every module that it takes for
    that, to draw the constants in it."""
    folder = private_folder() / "site-packages"
    folder.mkdir(exist_ok=True)
    return folder


def load_class(source: str, class_name: str) -> Any:
    """The class of a generated file; the same text gives the same class."""
    return getattr(load_text(source), safe(class_name))  # as the text spells it


def build_module(source: str, class_name: str, /, **sizes: Any) -> Any:
    """An instance of the generated class; `sizes` are the arguments of its `__init__`, by the names of the text.

    Errors: TypeError for a missing one, ValueError for a name that is no size of it, and for what is no integer.
    """
    return build_from(load_class(source, class_name), class_name, **sizes)


@cache
def _arguments(made: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(made).parameters


def build_from(made: Any, class_name: str, /, **sizes: Any) -> Any:
    """The same for a class that is loaded."""
    known = _arguments(made)
    lengths = [n for n in known if n not in ("device", "dtype")]
    given = {safe(n) if safe(n) in known else n: value for n, value in sizes.items()}
    unknown = [n for n in given if n not in known]
    if unknown:
        has = ", ".join(lengths) or "none: its sizes are those of its inputs"
        raise ValueError(f"{class_name} has no size `{unknown[0]}` to be built with; it has {has}")
    missing = [n for n in lengths if known[n].default is inspect.Parameter.empty and n not in given]
    if missing:
        raise TypeError(f"{class_name} needs the length of {', '.join(missing)} to be built")
    for name in lengths:
        value = given.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise ValueError(f"{class_name}: the size `{name}` must be an integer of at least 0, and is {value!r}")
    return made(**given)
