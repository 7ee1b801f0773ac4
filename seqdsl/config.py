"""The version, the private folder for what is kept between runs, and the debugging switches: environment variables, read
once, refused where a value means nothing.

SEQDSL_DEBUG     0 off, 1 passes and their time on stderr
SEQDSL_VALIDATE  1 checks the system's well-formedness after every pass (the tests set it)
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

VERSION = "0.1.0"


def _switch(name: str, valid: tuple[str, ...]) -> int:
    value = os.environ.get(name, "0")
    if value not in valid:
        raise SystemExit(f"unrecognised value {value!r} for {name}; valid values are {', '.join(valid)}")
    return int(value)


DEBUG = _switch("SEQDSL_DEBUG", ("0", "1"))
VALIDATE = _switch("SEQDSL_VALIDATE", ("0", "1"))


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
