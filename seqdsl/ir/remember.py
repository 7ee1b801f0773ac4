"""Results that belong to a system, or to what is made of one: computed once, forgotten with it.

A system is never changed, but it is too large to be compared or hashed; it is known by its identity.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar
from weakref import ReferenceType, ref

Owner = TypeVar("Owner")
Result = TypeVar("Result")


def once_for_each(function: Callable[[Owner], Result]) -> Callable[[Owner], Result]:
    """The function, remembering what it gave for every system that is alive. The result must not hold the system."""
    known: dict[int, tuple[ReferenceType[Owner], Result]] = {}

    @wraps(function)
    def remembered(system: Owner) -> Result:
        found = known.get(id(system))
        if found is None or found[0]() is not system:
            key = id(system)
            found = known[key] = ref(system, lambda _: known.pop(key, None)), function(system)
        return found[1]

    return remembered
