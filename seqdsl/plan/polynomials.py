"""Counts as polynomials in the lengths of axes, and as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Poly = dict[tuple[str, ...], int]  # monomial (sorted names of axes, and numbers) -> coefficient


def add(total: Poly, names: Iterable[str], count: int) -> None:
    """Add a monomial to a polynomial."""
    key = tuple(sorted(names))
    total[key] = total.get(key, 0) + count


def show(poly: Mapping[tuple[str, ...], int]) -> str:
    """`2 |t| |h| |d| |e| + 3 |t| |h|`, largest terms first."""
    terms = sorted(poly.items(), key=lambda item: (-len(item[0]), item[0]))
    return (
        " + ".join(" ".join([str(c) if c != 1 or not m else "", *(f"|{n}|" for n in m)]).strip() for m, c in terms)
        or "0"
    )


def leading(poly: Mapping[tuple[str, ...], int]) -> str:
    """Its terms that no other term is a multiple of."""
    names = {m: [n for n in m if not n.isdigit()] for m in poly}
    top = {m: c for m, c in poly.items() if not any(a != m and _within(names[m], names[a]) for a in poly)}
    return show(top)


def _within(some: list[str], all_: list[str]) -> bool:
    return len(some) < len(all_) and all(some.count(n) <= all_.count(n) for n in some)
