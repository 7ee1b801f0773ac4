"""Calls by substitution (rules 23 to 28): match axes, bind arguments, lower the callee again in a scope of its own.

Each index of the callee's header is matched to an index of the caller: by a setting `t = j`, else by name, else by
axis where either side says `index s over t`. What an argument has beyond that is mapped over; a mapped index leads
every tensor of the callee, and `tidy.narrow` later drops it from those that do not vary along it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from seqdsl.diagnostics import SeqError
from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.system import Tensor
from seqdsl.semantics import body as bodies
from seqdsl.semantics import expressions
from seqdsl.semantics.declare import check_given
from seqdsl.semantics.scope import Builder, File, Place, Ref, Scope
from seqdsl.semantics.sizes import lower_size
from seqdsl.semantics.unroll import MOST_EQUATIONS
from seqdsl.syntax import tree

Callable_ = tree.Mixer | tree.Fn
_DEEPEST = 40


@dataclass
class _Matching:
    """What the header's indices are for the caller."""

    names: dict[str, str] = field(default_factory=dict)  # callee's index -> system index
    mapped: list[str] = field(default_factory=list)
    sources: list[dict[str, str]] = field(default_factory=list)  # for each argument: callee's index -> argument's index


def lower_call(place: Place, call: tree.Call, file: File, callee: Callable_) -> Node:
    """A call inside an expression: its first output, every index standing for itself."""
    ref = inline(place, call, file, callee)[0]
    stray = [i for i in (*ref.mapped, *ref.indices) if i not in place.visible]
    if stray:
        ref_names = {i: i for i in stray}
        stray_names = " and ".join(f"`{expressions.local_name(place.scope, i)}`" for i in ref_names)
        raise SeqError(
            "stray-index",
            f"the right side varies along {stray_names}, the left side does not",
            call.span,
            label=f"the result of `{call.function.plain}` varies along it",
            help=f"add {stray_names} on the left",
        )
    return expressions.read_ref(ref, [build.index(i) for i in ref.indices])


def inline(place: Place, call: tree.Call, file: File, callee: Callable_, outputs: Sequence[str] = ()) -> list[Ref]:
    """Lower the callee for this call; references to its outputs. `outputs` renames them after bare left sides."""
    scope = place.scope
    if len(scope.stack) >= _DEEPEST:
        raise SeqError(
            "too-deep",
            f"calls are nested more than {_DEEPEST} levels deep",
            call.span,
            help="a stack of equal layers is a recurrence over depth (rule 28)",
        )
    if callee.name.plain in scope.stack:
        cycle = " -> ".join(f"`{name}`" for name in (*scope.stack, callee.name.plain))
        raise SeqError(
            "recursive-call",
            f"`{callee.name.plain}` calls itself",
            call.span,
            notes=(cycle,),
            help="a call is substitution; write a recurrence over an index instead",
        )
    if len(scope.builder.tensors) > MOST_EQUATIONS:
        raise SeqError(
            "too-many-equations",
            f"more than {MOST_EQUATIONS} equations after substitution",
            call.span,
            label="this call adds more",
            help="call a mixer once, along an axis, instead of many times",
        )
    if call.brackets is not None:
        raise SeqError(
            "unexpected-brackets",
            f"`{callee.name.plain}` is called, not used along indices",
            call.brackets.span,
            help="axes are matched by name; others after `;`, as in `f(x; t = j)`",
        )
    if len(call.args) != len(callee.params):
        raise SeqError(
            "wrong-number-of-arguments",
            f"`{callee.name.plain}` takes {expressions.counted(len(callee.params), 'argument')}, not {len(call.args)}",
            call.span,
            label=f"`{callee.name.plain}({', '.join(p.name.plain for p in callee.params)})`",
        )
    label = scope.count(place.target)
    renames, given, per = _settings(place, call, callee)
    anywhere = place.inside(scope.indices.values())  # what the left side lacks shows up in the result, or is consumed
    args = [expressions.lower(anywhere, a) for a in call.args]
    inner = Scope(
        scope.builder,
        file,
        callee.name.plain,
        f"{scope.prefix}{label}.",
        _path(scope, label, per),
        (),
        (*scope.stack, callee.name.plain),
    )
    matching = _match(place, inner, call, callee, args, renames)
    if per is not None:
        matching.mapped = [per, *(m for m in matching.mapped if m != per)]
    inner.mapped = tuple(m for m in _in_order(place, matching.mapped))
    inner.indices.update(matching.names)
    bodies.check_header(inner, callee)
    for formal, arg, source in zip(callee.params, args, matching.sources, strict=True):
        _bind(place, inner, formal, arg, source)
    bodies.lower_body(inner, callee, given, _output_names(scope, callee, outputs))
    if inner.faults:
        raise SeqError.of(inner.faults)  # what it should define is not there
    return _results(place, inner, callee, outputs)


def _path(scope: Scope, label: str, per: str | None) -> tuple[str, ...]:
    return (*scope.path, label) if per is None else (*scope.path, label, f"<{per}>")


def _in_order(place: Place, mapped: list[str]) -> list[str]:
    """Mapped indices in the order of the caller's left side, then as they came."""
    lead = [*place.scope.mapped, *place.left]
    return [m for m in lead if m in mapped] + [m for m in mapped if m not in lead]


def _settings(
    place: Place, call: tree.Call, callee: Callable_
) -> tuple[dict[str, tree.Name], dict[str, Node], str | None]:
    """Split settings into index matches, option values, and the index of `per`."""
    scope = place.scope
    expressions.once(call.settings)
    header = _header_indices(callee)
    known = {o.name.plain for o in callee.options}
    renames: dict[str, tree.Name] = {}
    given: dict[str, Node] = {}
    per = None
    for setting in call.settings:
        name = setting.name.plain
        if name == "per":
            per = _index_setting(place, setting)
        elif name in known and name not in header:
            given[name] = lower_size(scope, setting.value)
        elif name in header:
            _index_setting(place, setting)
            assert isinstance(setting.value, tree.Name)
            renames[name] = setting.value
        else:
            listed = ", ".join(f"`{n}`" for n in [*known, *header]) or "none"
            raise SeqError(
                "unknown-option",
                f"`{callee.name.plain}` has no option or index `{name}`",
                setting.span,
                help=f"it has: {listed}",
            )
    check_given(callee, given, call)
    return renames, given, per


def _index_setting(place: Place, setting: tree.Setting) -> str:
    value, scope = setting.value, place.scope
    if isinstance(value, tree.Name) and scope.kind_of(value.plain) is None:
        raise scope.unknown(value.plain, value.span, "index")
    if not isinstance(value, tree.Name) or value.plain not in scope.indices:
        listed = ", ".join(f"`{name}`" for name in scope.indices)
        raise SeqError(
            "not-an-index",
            f"`{setting.name.plain}` is matched to an index of `{scope.owner}`",
            setting.value.span,
            help=f"its indices: {listed}" if listed else "",
        )
    return scope.indices[value.plain]


def _header_indices(callee: Callable_) -> list[str]:
    found: list[str] = []
    for formal in callee.params:
        for item in formal.indices or ():
            name = (item.name if isinstance(item, tree.NewIndex) else item).plain
            if name not in found:
                found.append(name)
    return found


def _match(
    place: Place, inner: Scope, call: tree.Call, callee: Callable_, args: list[Node], renames: dict[str, tree.Name]
) -> _Matching:
    scope, builder = place.scope, place.scope.builder
    matching = _Matching()
    over = {p[0].plain: p[1].plain for s in callee.body if isinstance(s, tree.IndexDecl) for p in s.pairs}
    axes: dict[str, str] = {}  # callee's index -> axis, once bound
    formals = [[(i.name if isinstance(i, tree.NewIndex) else i).plain for i in f.indices or ()] for f in callee.params]
    matching.sources = [_by_name(scope, names, arg, renames) for names, arg in zip(formals, args, strict=True)]
    for source in matching.sources:
        for name, index in source.items():
            axes.setdefault(name, builder.axis(index))
    for names, arg, source in zip(formals, args, matching.sources, strict=True):
        _by_axis(builder, names, arg, source, axes, over)
    _agree(place, call, callee, axes, over)
    taken: set[str] = set()
    for name in dict.fromkeys(n for names in formals for n in names):
        if name not in axes and name in over and over[name] in axes:
            axes[name] = axes[over[name]]
        if name not in axes:
            raise SeqError(
                "unbound-axis",
                f"no argument has the axis `{name}` of `{callee.name.plain}`",
                call.span,
                label=f"`{name}` is bound by none of these",
                help=f"say which axis it is: `; {name} = ..`",
            )
        choices = [s[name] for s in matching.sources if name in s]
        chosen = next((c for c in choices if c not in taken), None)
        if chosen is None:
            chosen = builder.add_index(inner.prefix + name, axes[name], None)
        taken.add(chosen)
        matching.names[name] = chosen
    for k, (arg, source) in enumerate(zip(args, matching.sources, strict=True)):
        for index in _ordered_free(arg):
            if index in source.values():
                continue
            bound = next((n for n, i in matching.names.items() if i == index), None)
            if bound is not None and any(index in s.values() for s in matching.sources):
                raise SeqError(
                    "bound-and-mapped",
                    f"`{expressions.local_name(scope, index)}` is bound through one argument "
                    "and mapped through another",
                    call.args[k].span,
                    label=f"`{callee.params[k].name.plain}` of `{callee.name.plain}` has no `{bound}`",
                    help=f"give it that index, `{callee.params[k].name.plain}[{bound}]`",
                )
            if index not in matching.mapped:
                matching.mapped.append(index)
    return matching


def _by_name(scope: Scope, names: list[str], arg: Node, renames: dict[str, tree.Name]) -> dict[str, str]:
    """The argument's index for each formal index that a setting or the name decides."""
    source = {}
    for name in names:
        wanted = renames[name].plain if name in renames else name
        index = scope.indices.get(wanted)
        if index in arg.free:
            source[name] = index
    return source


def _by_axis(
    builder: Builder, names: list[str], arg: Node, source: dict[str, str], axes: dict[str, str], over: dict[str, str]
) -> None:
    """Where names do not decide: another index of the same axis, said by `index s over t` on either side."""
    for name in names:
        if name in source:
            continue
        base = over.get(name)
        wanted = axes.get(name) or (axes.get(base) if base is not None else None)
        if wanted is None:
            continue
        free = [i for i in _ordered_free(arg) if builder.axis(i) == wanted and i not in source.values()]
        if len(free) == 1:
            source[name] = free[0]
            axes.setdefault(name, wanted)


def _agree(place: Place, call: tree.Call, callee: Callable_, axes: dict[str, str], over: dict[str, str]) -> None:
    """Rule 5: two indices of one axis of the callee are two indices of one axis of the caller."""
    for name, base in over.items():
        if name in axes and base in axes and axes[name] != axes[base]:
            here = [expressions.local_name(place.scope, axes[n]) for n in (name, base)]
            raise SeqError(
                "axis-mismatch",
                f"`{name}` and `{base}` run over one axis in `{callee.name.plain}`, and over "
                f"`{here[0]}` and `{here[1]}` here",
                call.span,
                label="two axes",
                help=f"call a mixer that does not say `index {name} over {base}`",
            )


def _ordered_free(node: Node) -> list[str]:
    """The free indices, in the order in which the term mentions them."""
    found: dict[str, None] = {}
    stack = [node]
    seen: set[Node] = set()
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        if current.op == "index" and current.attr in node.free:
            found.setdefault(str(current.attr))
        stack.extend(reversed(current.args))
    return [*found, *(n for n in sorted(node.free) if n not in found)]


def _bind(place: Place, inner: Scope, formal: tree.Formal, arg: Node, source: dict[str, str]) -> None:
    """The argument as a tensor of the callee, over its mapped indices and the formal's.

    Where the formal's index is a second one of the axis, `k[s]` of an argument along `t`, it is a tensor over `t` as a name
    for it would be: its values are made once, and one after another.
    """
    names = [(i.name if isinstance(i, tree.NewIndex) else i).plain for i in formal.indices or ()]
    own = tuple(inner.indices[n] for n in names)
    others = {i for n, i in zip(names, own, strict=True) if n not in source}
    given = tuple(i if source.get(n, i) in others else source[n] for n, i in zip(names, own, strict=True))
    moved = {source[n]: build.index(i) for n, i in zip(names, given, strict=True) if n in source and source[n] != i}
    node = build.substitute(arg, moved)
    mapped = tuple(i for i in _in_order(place, _ordered_free(node)) if i not in given)
    ref = Ref(inner.prefix + formal.name.plain, mapped, own, formal.name.plain)
    if formal.name.plain in inner.tensors:
        raise SeqError("name-clash", f"`{formal.name.plain}` is declared twice in the header", formal.span)
    inner.tensors[formal.name.plain] = ref
    place.scope.builder.tensors[ref.name] = Tensor(
        ref.name,
        (*mapped, *given),
        expressions.PLACEHOLDER,
        "derived",
        node,
        comment=f"{formal.name.plain} of {inner.owner}",
    )
    place.scope.builder.mapped[ref.name] = ()
    place.scope.builder.spans.setdefault(ref.name, formal.span)


def _output_names(scope: Scope, callee: Callable_, outputs: Sequence[str]) -> dict[str, str]:
    """The callee's output -> the system name that a bare left side gives it."""
    return {o.name.plain: scope.prefix + name for o, name in zip(callee.outputs, outputs, strict=False)}


def _results(place: Place, inner: Scope, callee: Callable_, outputs: Sequence[str]) -> list[Ref]:
    scope = place.scope
    names = [o.name.plain for o in callee.outputs] or [bodies.VALUE]
    refs = [inner.tensors[n] for n in names]
    renames: dict[str, str] = {}
    taken = {i for r in refs for i in (*inner.mapped, *r.indices)}
    for index in dict.fromkeys(i for r in refs for i in r.indices if i.startswith(inner.prefix)):
        local = expressions.local_name(inner, index)
        mine = scope.indices.get(local)
        if outputs and scope.kind_of(local) is None:
            scope.indices[local] = index  # `lo, hi = haar(x)` makes the callee's index known here
        elif mine is not None and mine not in taken and (outputs or mine in place.left):
            renames[index] = mine  # the caller's index of that name; the lengths must agree
            scope.builder.constraints.append((mine, index))
    return [Ref(r.name, inner.mapped, tuple(renames.get(i, i) for i in r.indices), r.local) for r in refs]
