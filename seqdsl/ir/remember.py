"""Results that belong to a system, or to what is made of one: computed once, forgotten with it.

A system is never changed, but it is too large to be compared or hashed; it is known by its identity.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar
from weakref import ReferenceType, ref

Owner = TypeVar("Owner")
More = ParamSpec("More")
Result = TypeVar("Result")


def once_for_each(function: Callable[Concatenate[Owner, More], Result]) -> Callable[Concatenate[Owner, More], Result]:
    """The function, remembering what it gave for every system that is alive and all its other arguments. The result must
    not hold the system, and nobody may change it."""
    known: dict[int, tuple[ReferenceType[Owner], dict[object, Any]]] = {}

    @wraps(function)
    def remembered(system: Owner, /, *args: More.args, **named: More.kwargs) -> Result:
        found = known.get(id(system))
        if found is None or found[0]() is not system:
            key = id(system)
            found = known[key] = ref(system, lambda _: known.pop(key, None)), {}
        given, results = (args, tuple(named.items())), found[1]
        if given not in results:
            results[given] = function(system, *args, **named)
        return results[given]  # type: ignore[no-any-return]

    return remembered
