"""The version, the private folder for what is kept between runs, and a debugging switch: an environment variable, read
once, refused where its value means nothing.

SEQDSL_VALIDATE  1 checks the system's well-formedness after every pass (the tests set it)
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

VERSION = "0.1.0"


def _switch(name: str) -> int:
    value = os.environ.get(name, "0")
    if value not in ("0", "1"):
        raise SystemExit(f"unrecognised value {value!r} for {name}; valid values are 0, 1")
    return int(value)


VALIDATE = _switch("SEQDSL_VALIDATE")


@cache
def private_folder() -> Path:
    """A folder that only this user can write to: what is read from it (the parser's tables, generated modules) runs."""
    import stat
    import tempfile

    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"seqdsl-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        ours = not hasattr(os, "getuid") or found.st_uid == os.getuid() and not found.st_mode & 0o022
        if stat.S_ISDIR(found.st_mode) and ours and os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="seqdsl-"))
