"""Integer evaluation of sizes: options, axis lengths, and the checks of rule 8, with the numbers in every error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from seqdsl.ir.node import Node
from seqdsl.ir.ops import OPS
from seqdsl.ir.show import show
from seqdsl.ir.system import System, Tensor

LARGEST = 2**40  # a size beyond this is refused, and never computed
MOST_ELEMENTS = 2**31


class SizeError(Exception):
    """A size that does not work out. `code` is an error code, `label` says whose size it is, `note` has the numbers."""

    def __init__(self, code: str, message: str, note: str = "", label: str = "") -> None:
        self.code, self.message, self.note, self.label = code, message, note, label
        super().__init__(f"{code}: {message}{' (' + note + ')' if note else ''}")


@dataclass(frozen=True)
class Sizes:
    """Every option and every index of a system, as integers."""

    options: Mapping[str, int] = field(default_factory=dict)
    lengths: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, index: str) -> int:
        return self.lengths[index.rstrip("'")]


def evaluate_size(node: Node, options: Mapping[str, int], lengths: Mapping[str, int]) -> int:
    """The integer value of a size formula. Errors: `inexact-division`, `division-by-zero`, `size-too-large`,
    `missing-size`."""
    if node.op == "const":
        return _bounded(node, int(node.attr))
    if node.op in ("option", "size"):
        known = options if node.op == "option" else lengths
        name = str(node.attr).rstrip("'")
        if name not in known:
            raise SizeError("missing-size", f"the size `{show(node)}` is not known")
        return known[name]
    args = [evaluate_size(a, options, lengths) for a in node.args]
    return _bounded(node, _apply(node, args))


def _bounded(node: Node, value: int) -> int:
    if abs(value) > LARGEST:
        raise SizeError("size-too-large", f"`{show(node)}` is larger than 2^40")
    return value


def _apply(node: Node, args: list[int]) -> int:
    numbers = " and ".join(str(a) for a in args)
    if node.op in ("exact_div", "floor_div", "mod", "div") and args[1] == 0:
        raise SizeError("division-by-zero", f"`{show(node)}` divides by zero", f"the operands are {numbers}")
    match node.op:
        case "add":
            return args[0] + args[1]
        case "sub":
            return args[0] - args[1]
        case "mul":
            return args[0] * args[1]
        case "neg":
            return -args[0]
        case "floor_div":
            return args[0] // args[1]
        case "mod":
            return args[0] % args[1]
        case "maximum":
            return max(args)
        case "minimum":
            return min(args)
        case "bit_length":
            return args[0].bit_length()
        case "exact_div":
            if args[0] % args[1]:
                raise SizeError(
                    "inexact-division",
                    f"`{show(node)}` is not an integer",
                    f"{args[0]} / {args[1]} leaves {args[0] % args[1]}",
                )
            if args[0] // args[1] < 1 and args[0] != 0:
                raise SizeError("bad-size", f"`{show(node)}` is not positive", f"it is {args[0] // args[1]}")
            return args[0] // args[1]
        case "pow":
            if args[1] < 0 or (abs(args[0]) > 1 and args[1] > 40):
                raise SizeError(
                    "size-too-large" if args[1] > 0 else "bad-size",
                    f"`{show(node)}` is no size",
                    f"the operands are {numbers}",
                )
            return int(args[0] ** args[1])
    raise SizeError("bad-size", f"`{OPS[node.op].name}` makes no size")


def bind(system: System, options: Mapping[str, int], lengths: Mapping[str, int], *, complete: bool = True) -> Sizes:
    """Every option and length from what is known; checks run where their sizes are known (all, if `complete`)."""
    found = dict(lengths)
    chosen = {}
    for name in system.options:
        if name in options:
            chosen[name] = int(options[name])
    for name, index in system.indices.items():  # second indices share their axis's length
        if name in found and index.axis not in found:
            found[index.axis] = found[name]
    progress = True
    while progress:
        progress = _bind_options(system, chosen, found) | _bind_indices(system, chosen, found)
    missing = [n for n in system.options if n not in chosen] + [n for n in system.indices if n not in found]
    if missing and complete:
        _explain_missing(missing[0], chosen, found)
    _run_checks(system, chosen, found)
    return Sizes(chosen, found)


def _bind_options(system: System, chosen: dict[str, int], found: dict[str, int]) -> bool:
    progress = False
    for name, default in system.options.items():
        if name not in chosen and default is not None and _known(default, chosen, found):
            chosen[name] = evaluate_size(default, chosen, found)
            progress = True
    return progress


def _bind_indices(system: System, chosen: dict[str, int], found: dict[str, int]) -> bool:
    progress = False
    for name, index in system.indices.items():
        if name in found:
            continue
        if index.axis in found and index.axis != name:
            found[name], progress = found[index.axis], True
        elif index.size is not None and _known(index.size, chosen, found):
            found[name], progress = evaluate_size(index.size, chosen, found), True
    return progress


def _known(node: Node, chosen: Mapping[str, int], found: Mapping[str, int]) -> bool:
    if node.op == "option":
        return node.attr in chosen
    if node.op == "size":
        return str(node.attr).rstrip("'") in found
    return all(_known(a, chosen, found) for a in node.args)


def _explain_missing(name: str, chosen: Mapping[str, int], found: Mapping[str, int]) -> None:
    raise SizeError(
        "missing-size",
        f"the size of `{name}` is not known",
        "known: " + ", ".join(f"{k} = {v}" for k, v in {**chosen, **found}.items()) if chosen or found else "",
    )


def _run_checks(system: System, chosen: Mapping[str, int], found: Mapping[str, int]) -> None:
    for check in system.checks:
        if _known(check.value, chosen, found):
            value = evaluate_size(check.value, chosen, found)
            if value < check.least:
                raise SizeError(
                    "bad-size",
                    f"{check.label} is {value}, and must be at least {check.least}",
                    f"`{show(check.value)}`",
                    check.label,
                )
    for name, index in system.indices.items():
        if name in found and index.size is not None and _known(index.size, chosen, found):
            stated = evaluate_size(index.size, chosen, found)
            if stated != found[name]:
                raise SizeError(
                    "size-mismatch", f"the axis `{name}` has length {found[name]}, and `{show(index.size)}` is {stated}"
                )
    for a, b in system.constraints:
        x, y = found.get(system.index(a).name), found.get(system.index(b).name)
        if x is not None and y is not None and x != y:
            raise SizeError(
                "size-mismatch", f"the axes `{a}` and `{b}` must have equal lengths", f"|{a}| = {x}, |{b}| = {y}"
            )


def elements(system: System, tensor: Tensor, sizes: Sizes) -> int:
    """How many entries a tensor has; `size-too-large` beyond 2^31."""
    count = 1
    for index in tensor.indices:
        count *= sizes[index]
    if count > MOST_ELEMENTS:
        raise SizeError("size-too-large", f"`{tensor.name}` would have {count} entries", "the limit is 2^31")
    return count
