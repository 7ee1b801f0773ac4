"""From bytes to text: what can go wrong before there is a text to cite.

Entry points: `read_source` for a file, `decode` for bytes.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from seqdsl.diagnostics import SeqError, Source, Span

LARGEST = 1_000_000  # bytes: some 20 000 lines, more than any person writes and a second or ten of parsing


def read_source(path: str | os.PathLike[str]) -> Source:
    """The text of a file; `SeqError` when there is none to read."""
    name = os.fspath(path)
    try:
        mode = Path(path).stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or name.startswith("/dev/")):  # /dev/stdin is asked for
            raise SeqError("file-not-found", f"`{name}` is a pipe or a device, not a file")
        with Path(path).open("rb") as file:
            data = file.read(LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise SeqError("file-not-found", f"there is no file `{name}`") from None
    except IsADirectoryError:
        raise SeqError("file-not-found", f"`{name}` is a folder, not a file", help="name a .seq file in it") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SeqError("file-not-found", f"`{name}` cannot be read: {reason.lower()}") from None
    return decode(data, name)


def decode(data: bytes, name: str = "<text>") -> Source:
    """The text that bytes spell in UTF-8; a byte order mark is dropped."""
    if len(data) > LARGEST:
        raise too_large(name)
    try:
        return Source(name, data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SeqError("not-utf8", f"`{name}` is not UTF-8: byte {data[error.start]:#04x} in line {line}",
                       help="save the file as UTF-8") from None


def too_large(name: str) -> SeqError:
    """The refusal of a text beyond `LARGEST`."""
    return SeqError("file-too-large", f"`{name}` is larger than {LARGEST:,} bytes".replace(",", " "),
                    help="split it: mixers are imported by name from sibling files")


def whole(source: Source) -> Span:
    """The span of a whole text."""
    return Span(source, 0, len(source.text), 1, 1)
