"""From the grammar's rules to the tree: one method for each rule or alias of grammar/seq.lark.

Invariant: a method's parameters are the rule's symbols, all tokens included, None for an absent optional one.
Parentheses vanish; the span of what they enclosed then includes them. Entry point: `Builder`, lark's transformer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from lark import Transformer, v_args

from seqdsl.diagnostics import Diagnostic, SeqError, Span
from seqdsl.syntax import tree
from seqdsl.syntax.comments import Comment
from seqdsl.syntax.layout import Lexeme
from seqdsl.syntax.monoid import Member, monoid_of

N = TypeVar("N", bound=tree.Node)
Axis = tree.Name | tree.NewIndex
Place = tree.Name | tree.NewIndex | tree.Number | tree.Unary | tree.SizeOf
Subscript = tree.Expr | tree.NewIndex


@dataclass(frozen=True)
class Block:
    """Statements, and the comments of the header above them."""

    statements: tuple[tree.Statement, ...]
    comments: tuple[Comment, ...]
    span: Span


@dataclass(frozen=True)
class Signature:
    """What stands in the parentheses of a header."""

    params: tuple[tree.Formal, ...]
    options: tuple[tree.Option, ...]


def _nodes(children: Iterable[Any], kind: type[N]) -> tuple[N, ...]:
    """The children that are nodes of a kind: commas and brackets drop out."""
    return tuple(child for child in children if isinstance(child, kind))


def _name(token: Lexeme) -> tree.Name:
    return tree.Name(token.parts, span=token.span)


def parenthesised(expr: tree.Expr) -> bool:
    """Whether parentheses surround the whole expression: its span starts with one, and before its first operand."""
    first = {tree.Binary: "left", tree.Compare: "args"}.get(type(expr))
    operand = getattr(expr, first) if first else None
    operand = operand[0] if isinstance(operand, tuple) else operand
    return expr.span.text.startswith("(") and (operand is None or operand.span.start > expr.span.start)


def listed(value: tree.Expr) -> tree.Tuple:
    """The value of `identity` or `lift` as a tuple, one entry for each field: `(0)` and `0` have one."""
    return value if isinstance(value, tree.Tuple) else tree.Tuple((value,), span=value.span)


@v_args(inline=True)
class Builder(Transformer[Lexeme, tree.Module]):
    """Builds the nodes of `tree`, bottom up, while lark parses."""

    def start(self, *items: tree.Import | tree.Mixer | tree.Fn | tree.Monoid) -> tuple[Any, ...]:
        return items

    # Declarations --------------------------------------------------------------------------------------------------

    def import_(self, first: Lexeme, names: tuple[tree.Name, ...], _from: Lexeme, file: Lexeme,
                end: Lexeme) -> tree.Import:
        return tree.Import(names, _name(file), end.comments, span=first.span.to(file.span))

    def names(self, *children: Lexeme) -> tuple[tree.Name, ...]:
        return tuple(_name(child) for child in children[::2])

    def mixer(self, first: Lexeme, name: Lexeme, signature: Signature, outputs: tuple[tree.Output, ...],
              _colon: Lexeme, block: Block) -> tree.Mixer:
        return tree.Mixer(_name(name), signature.params, signature.options, outputs, block.statements, block.comments,
                          span=first.span.to(block.span))

    def fn_block(self, first: Lexeme, name: Lexeme, signature: Signature, outputs: tuple[tree.Output, ...],
                 _colon: Lexeme, block: Block) -> tree.Fn:
        return tree.Fn(_name(name), signature.params, signature.options, outputs, block.statements, None,
                       block.comments, span=first.span.to(block.span))

    def fn_value(self, first: Lexeme, name: Lexeme, signature: Signature, _equals: Lexeme, value: tree.Expr,
                 end: Lexeme) -> tree.Fn:
        return tree.Fn(_name(name), signature.params, signature.options, (), (), value, end.comments,
                       span=first.span.to(value.span))

    def monoid(self, first: Lexeme, name: Lexeme, signature: Signature, _colon: Lexeme, end: Lexeme, _in: Lexeme,
               *children: Member | tree.ParamDecl | tree.ClaimDecl | Lexeme) -> tree.Monoid:
        members = [child for child in children if not isinstance(child, Lexeme)]
        return monoid_of(_name(name), signature.params, signature.options, members, end.comments,
                         first.span.to(members[-1].span))

    def member_value(self, name: Lexeme, _equals: Lexeme, value: tree.Expr, end: Lexeme) -> Member:
        return Member(_name(name), None, listed(value), None, None, end.comments, name.span.to(value.span))

    def member_line(self, name: Lexeme, _open: Lexeme, params: tuple[tree.Formal, ...], _close: Lexeme,
                    _equals: Lexeme, value: tree.Expr, end: Lexeme) -> Member:
        return Member(_name(name), params, listed(value), None, None, end.comments, name.span.to(value.span))

    def member_block(self, name: Lexeme, _open: Lexeme, params: tuple[tree.Formal, ...], _close: Lexeme,
                     _colon: Lexeme, block: Block) -> Member:
        return Member(_name(name), params, None, None, block.statements, block.comments, name.span.to(block.span))

    def member_outputs(self, name: Lexeme, outputs: tuple[tree.Output, ...], _colon: Lexeme, block: Block) -> Member:
        return Member(_name(name), None, None, outputs, block.statements, block.comments, name.span.to(block.span))

    def signature(self, _open: Lexeme, params: tuple[tree.Formal, ...] | None, _semicolon: Lexeme | None,
                  options: tuple[tree.Option, ...] | None, _close: Lexeme) -> Signature:
        return Signature(params or (), options or ())

    def params(self, *children: tree.Formal | Lexeme) -> tuple[tree.Formal, ...]:
        return _nodes(children, tree.Formal)

    def param(self, name: Lexeme, axes: tree.Brackets | None, _colon: Lexeme | None,
              kind: Lexeme | None) -> tree.Formal:
        span = name.span.to(kind.span) if kind else name.span.to(axes.span) if axes else name.span
        return tree.Formal(_name(name), _indices(axes), str(kind) if kind else None, span=span)

    def options(self, *children: tree.Option | Lexeme) -> tuple[tree.Option, ...]:
        return _nodes(children, tree.Option)

    def option(self, name: Lexeme, _equals: Lexeme | None, default: tree.Expr | None) -> tree.Option:
        return tree.Option(_name(name), default, span=name.span.to(default.span) if default else name.span)

    def results(self, _arrow: Lexeme, *children: tree.Output | Lexeme) -> tuple[tree.Output, ...]:
        return _nodes(children, tree.Output)

    def output(self, name: Lexeme, axes: tree.Brackets | None) -> tree.Output:
        return tree.Output(_name(name), _indices(axes), span=name.span.to(axes.span) if axes else name.span)

    def axes(self, *children: Axis | Lexeme | None) -> tree.Brackets:
        first, last = cast(Lexeme, children[0]), cast(Lexeme, children[-1])
        items = tuple(child for child in children if isinstance(child, tree.Node))
        return tree.Brackets(cast(tuple[tree.Name, ...], items), span=first.span.to(last.span))

    places = axes

    def new_index(self, name: Lexeme, _colon: Lexeme, size: tree.Expr) -> tree.NewIndex:
        return tree.NewIndex(_name(name), size, span=name.span.to(size.span))

    def type_(self, token: Lexeme) -> Lexeme:
        return token

    # Statements ----------------------------------------------------------------------------------------------------

    def block(self, end: Lexeme, _in: Lexeme, *children: tree.Statement | Lexeme) -> Block:
        statements = tuple(child for child in children if not isinstance(child, Lexeme))
        return Block(statements, end.comments, statements[0].span.to(statements[-1].span))

    def equation(self, *children: Any) -> tree.Equation:
        targets, value, end = _nodes(children, tree.Target), children[-2], children[-1]
        return tree.Equation(targets, value, end.comments, span=targets[0].span.to(value.span))

    def target(self, name: Lexeme, places: tree.Brackets | None) -> tree.Target:
        indices = cast(tuple[Place, ...] | None, places.items if places else None)
        return tree.Target(_name(name), indices, span=name.span.to(places.span) if places else name.span)

    def negative(self, minus: Lexeme, number: Lexeme) -> tree.Unary:
        return tree.Unary("-", self.number(number), span=minus.span.to(number.span))

    def index(self, first: Lexeme, *children: Any) -> tree.IndexDecl:
        pairs = tuple(child for child in children if isinstance(child, tuple))
        return tree.IndexDecl(pairs, children[-1].comments, span=first.span.to(pairs[-1][1].span))

    def pair(self, name: Lexeme, _over: Lexeme, over: Lexeme) -> tuple[tree.Name, tree.Name]:
        return _name(name), _name(over)

    def parameter(self, first: Lexeme, name: Lexeme, axes: tree.Brackets | None, _colon: Lexeme | None,
                  kind: Lexeme | None, _equals: Lexeme | None, value: tree.Expr | None,
                  end: Lexeme) -> tree.ParamDecl:
        target = self.target(name, axes)
        last = value.span if value else kind.span if kind else target.span
        return tree.ParamDecl(target, str(kind) if kind else None, value, end.comments, span=first.span.to(last))

    def constant(self, first: Lexeme, name: Lexeme, axes: tree.Brackets | None, _equals: Lexeme, value: tree.Expr,
                 end: Lexeme) -> tree.ConstDecl:
        return tree.ConstDecl(self.target(name, axes), value, end.comments, span=first.span.to(value.span))

    def claim(self, first: Lexeme, assertions: tuple[tree.Expr, ...], _when: Lexeme | None,
              condition: tree.Expr | None, end: Lexeme) -> tree.ClaimDecl:
        last = condition or assertions[-1]
        return tree.ClaimDecl(assertions, condition, end.comments, span=first.span.to(last.span))

    def for_(self, first: Lexeme, name: Lexeme, _in: Lexeme, start: tree.Expr, _range: Lexeme, stop: tree.Expr,
             _colon: Lexeme, block: Block) -> tree.For:
        return tree.For(_name(name), start, stop, block.statements, block.comments, span=first.span.to(block.span))

    # Expressions ---------------------------------------------------------------------------------------------------

    def binary(self, left: tree.Expr, op: Lexeme, right: tree.Expr) -> tree.Binary:
        return tree.Binary(str(op), left, right, span=left.span.to(right.span))

    def unary(self, op: Lexeme, arg: tree.Expr) -> tree.Unary:
        return tree.Unary(str(op), arg, span=op.span.to(arg.span))

    def compare(self, *children: Any) -> tree.Compare:
        ops = tuple(str(op) for op in children[1::2])
        return tree.Compare(ops, children[::2], span=children[0].span.to(children[-1].span))

    def reduction(self, op: Lexeme, brackets: tree.Brackets, body: tree.Expr) -> tree.Reduction:
        return tree.Reduction(str(op), brackets, body, span=op.span.to(body.span))

    def number(self, token: Lexeme) -> tree.Number:
        return tree.Number(str(token), span=token.span)

    def name(self, token: Lexeme) -> tree.Name:
        return _name(token)

    def field(self, owner: Lexeme, _dot: Lexeme, name: Lexeme) -> tree.Field:
        return tree.Field(_name(owner), _name(name), span=owner.span.to(name.span))

    def size(self, first: Lexeme, name: Lexeme, last: Lexeme) -> tree.SizeOf:
        return tree.SizeOf(_name(name), span=first.span.to(last.span))

    def parens(self, first: Lexeme, expr: tree.Expr, last: Lexeme) -> tree.Expr:
        return replace(expr, span=first.span.to(last.span))

    def tuple_(self, *children: Any) -> tree.Tuple:
        return tree.Tuple(children[1::2], span=children[0].span.to(children[-1].span))

    def read(self, tensor: Lexeme | tree.Field, brackets: tree.Brackets) -> tree.Read:
        if brackets.made is not None or brackets.guard is not None or _nodes(brackets.items, tree.NewIndex):
            raise SeqError.of([_call_without_arguments(tensor, brackets)])
        owner = tensor if isinstance(tensor, tree.Field) else _name(tensor)
        return tree.Read(owner, brackets, span=tensor.span.to(brackets.span))

    def call(self, name: Lexeme, arguments: tuple[Any, ...]) -> tree.Call:
        return self.axis_call(name, None, arguments)

    def axis_call(self, name: Lexeme, brackets: tree.Brackets | None, arguments: tuple[Any, ...]) -> tree.Call:
        args, settings, last = arguments
        return tree.Call(_name(name), brackets, args, settings, span=name.span.to(last.span))

    def brackets(self, first: Lexeme, items: tuple[Subscript, ...], _arrow: Lexeme | None,
                 made: tuple[Subscript, ...] | None, _bar: Lexeme | None, guard: tree.Expr | None,
                 last: Lexeme) -> tree.Brackets:
        return tree.Brackets(items, made, guard, span=first.span.to(last.span))

    def subscripts(self, *children: Any) -> tuple[Any, ...]:
        return children[::2]

    exprs = subscripts
    settings = subscripts

    def arguments(self, _open: Lexeme, args: tuple[tree.Expr, ...] | None, _semicolon: Lexeme | None,
                  settings: tuple[tree.Setting, ...] | None, last: Lexeme) -> tuple[Any, ...]:
        return args or (), settings or (), last

    def setting(self, name: Lexeme, _equals: Lexeme, value: tree.Expr) -> tree.Setting:
        return tree.Setting(_name(name), value, span=name.span.to(value.span))


def _indices(axes: tree.Brackets | None) -> tuple[Axis, ...] | None:
    return cast(tuple[Axis, ...], axes.items) if axes else None


def _call_without_arguments(tensor: Lexeme | tree.Field, brackets: tree.Brackets) -> Diagnostic:
    """`q[d -> e]` or `q[s | s < t]` or `q[h: H]`, not followed by `(..)`: only calls and sums have these."""
    what = "->" if brackets.made is not None else "|" if brackets.guard is not None else ":"
    return Diagnostic("missing-arguments", f"`{what}` in the brackets of a read", brackets.span,
                      label="these are the brackets of an operation",
                      help=f"write `{tensor.span.text}{brackets.span.text}(..)`, or only subscripts for a tensor")
