"""Generated text as a module: written to a cache folder of its own, so that tracebacks and compilers find its lines."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from seqdsl.backends.torch_module.names import safe


def _folder() -> Path:
    """A private folder for generated modules."""
    folder = Path(tempfile.gettempdir()) / f"seqdsl-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
        folder = Path(tempfile.mkdtemp(prefix="seqdsl-"))
    return folder


def load_class(source: str, class_name: str) -> Any:
    """The class of a generated file; the same text gives the same class."""
    stem = "seqdsl_generated_" + hashlib.sha256(source.encode()).hexdigest()[:16]
    if stem not in sys.modules:
        path = _folder() / f"{stem}.py"
        if not path.is_file() or path.read_text(encoding="utf-8") != source:
            scratch = path.with_suffix(f".{os.getpid()}.tmp")
            scratch.write_text(source, encoding="utf-8")
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
    return getattr(sys.modules[stem], safe(class_name))  # as the text spells it


def build_module(source: str, class_name: str, /, **sizes: Any) -> Any:
    """An instance of the generated class; `sizes` are the arguments of its `__init__`, by the names of the text."""
    cls = load_class(source, class_name)
    spelled = {name: safe(name) for name in sizes}
    known = inspect.signature(cls).parameters
    return cls(**{spelled[name] if spelled[name] in known else name: value for name, value in sizes.items()})
