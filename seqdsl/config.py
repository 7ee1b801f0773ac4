"""The version, and the debugging switches: environment variables, read once, refused where a value means nothing.

SEQDSL_DEBUG     0 off, 1 passes and their time on stderr
SEQDSL_VALIDATE  1 checks the system's well-formedness after every pass (the tests set it)
"""

from __future__ import annotations

import os

VERSION = "0.1.0"


def _switch(name: str, valid: tuple[str, ...]) -> int:
    value = os.environ.get(name, "0")
    if value not in valid:
        raise SystemExit(f"unrecognised value {value!r} for {name}; valid values are {', '.join(valid)}")
    return int(value)


DEBUG = _switch("SEQDSL_DEBUG", ("0", "1"))
VALIDATE = _switch("SEQDSL_VALIDATE", ("0", "1"))
