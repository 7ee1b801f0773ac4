"""What a misspelt name was meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


def did_you_mean(
    name: str, known: Iterable[str], otherwise: str = "", *, written: Mapping[str, str] | None = None
) -> str:
    """A line of help with the known names that look like it, as they are `written` where that differs; what to say where
    none does."""
    others = sorted({*known} - {name})
    near = difflib.get_close_matches(name.casefold(), {n.casefold(): n for n in others}, 3, 0.6)
    texts = written or {}
    meant = [f"`{texts.get(n, n)}`" for fold in near for n in others if n.casefold() == fold]
    return f"did you mean {' or '.join(meant)}?" if meant else otherwise
