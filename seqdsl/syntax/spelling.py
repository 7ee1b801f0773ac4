"""Expressions as text: canonical blanks, and no parenthesis that the grammar does not need.

Each expression is spelled with the rule of grammar/seq.lark that derives it; where another rule is asked for,
parentheses stand around it. Entry points: `spell` and the spellings of headers' and left sides' parts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntEnum

from seqdsl.syntax import tree


class Rule(IntEnum):
    """The grammar's rules for expressions, tightest first; each derives those before it, but a sum is no product."""

    ATOM = 0
    POWER = 1
    FACTOR = 2
    PRODUCT = 3
    SUM = 4
    TERM = 5
    ARITH = 6
    COMPARISON = 7
    NEG = 8
    CONJ = 9
    EXPR = 10


_BINARY = {"or": (Rule.EXPR, Rule.EXPR, Rule.CONJ), "and": (Rule.CONJ, Rule.CONJ, Rule.NEG),
           "+": (Rule.ARITH, Rule.ARITH, Rule.TERM), "-": (Rule.ARITH, Rule.ARITH, Rule.TERM),
           "^": (Rule.POWER, Rule.ATOM, Rule.FACTOR)}  # op: the rule, and those of its operands
_SIMPLE = re.compile(r"-?[\w{}+-]+|\|[\w{}+-]+\|")  # subscripts after whose comma no blank stands
_TIGHTEST = 3  # operands of arithmetic without blanks, `t-1`, `2*u+1`


def spell(expr: tree.Expr) -> str:
    """An expression where any may stand."""
    return _within(expr, Rule.EXPR, " ")


def spell_size(expr: tree.Expr) -> str:
    """A subscript, a size, a bound or the number of a name: arithmetic of few plain operands has no blanks."""
    operands = _plain_operands(expr)
    return _within(expr, Rule.EXPR, "" if operands is not None and operands <= _TIGHTEST else " ")


def _plain_operands(expr: tree.Expr) -> int | None:
    """How many operands stand between `+ - * /` only; None where there is anything else, or a parenthesis."""
    if isinstance(expr, tree.Number | tree.Name | tree.SizeOf):
        return 1
    if isinstance(expr, tree.Unary) and expr.op == "-" and isinstance(expr.arg, tree.Number | tree.Name | tree.SizeOf):
        return 1
    if not isinstance(expr, tree.Binary) or expr.op not in ("+", "-", "*", "/"):
        return None
    left, right = _plain_operands(expr.left), _plain_operands(expr.right)
    if left is None or right is None or isinstance(expr.right, tree.Unary) or not _bare_operands(expr):
        return None
    return left + right


def _bare_operands(expr: tree.Binary) -> bool:
    if expr.op in ("+", "-"):
        return rule_of(expr.right) <= Rule.TERM
    return rule_of(expr.left) <= Rule.PRODUCT and rule_of(expr.right) <= Rule.FACTOR


def rule_of(expr: tree.Expr) -> Rule:
    """The tightest rule that derives an expression."""
    if isinstance(expr, tree.Reduction):
        return Rule.SUM
    if isinstance(expr, tree.Compare):
        return Rule.COMPARISON
    if isinstance(expr, tree.Unary):
        if expr.op == "not":
            return Rule.NEG
        return Rule.SUM if rule_of(expr.arg) == Rule.SUM else Rule.FACTOR
    if isinstance(expr, tree.Binary):
        if expr.op in _BINARY:
            return _BINARY[expr.op][0]
        return Rule.TERM if _ends_in_sum(expr) else Rule.PRODUCT
    return Rule.ATOM


def _ends_in_sum(expr: tree.Binary) -> bool:
    """Whether a product's right operand is a sum without parentheses: after a division only a short one."""
    return rule_of(expr.right) == Rule.SUM and (expr.op == "*" or _short(expr.right))


def _short(expr: tree.Expr) -> bool:
    if isinstance(expr, tree.Unary):
        return _short(expr.arg)
    return isinstance(expr, tree.Reduction) and rule_of(expr.body) <= Rule.FACTOR


def _within(expr: tree.Expr, rule: Rule, blank: str) -> str:
    """An expression as an operand, in parentheses where `rule` does not derive it."""
    fits = rule_of(expr) <= rule
    text = _bare(expr, blank if fits else " ")
    return text if fits else f"({text})"


def _bare(expr: tree.Expr, blank: str) -> str:
    match expr:
        case tree.Number():
            return expr.text
        case tree.Name():
            return spell_name(expr)
        case tree.SizeOf():
            return f"|{spell_name(expr.name)}|"
        case tree.Field():
            return f"{spell_name(expr.owner)}.{spell_name(expr.name)}"
        case tree.Unary():
            rule = Rule.NEG if expr.op == "not" else Rule.SUM if rule_of(expr.arg) == Rule.SUM else Rule.FACTOR
            return f"{expr.op}{' ' if expr.op == 'not' else ''}{_within(expr.arg, rule, blank)}"
        case tree.Binary():
            return _binary(expr, blank)
        case tree.Compare():
            rest = "".join(f" {op} {_within(arg, Rule.ARITH, blank)}"
                           for op, arg in zip(expr.ops, expr.args[1:], strict=True))
            return _within(expr.args[0], Rule.ARITH, blank) + rest
        case tree.Tuple():
            return f"({', '.join(spell_size(item) for item in expr.items)})"
        case tree.Read():
            return _bare(expr.tensor, blank) + spell_brackets(expr.brackets)
        case tree.Reduction():
            return f"{expr.op}{spell_brackets(expr.brackets)} {_within(expr.body, Rule.TERM, blank)}"
        case tree.Call():
            brackets = spell_brackets(expr.brackets) if expr.brackets else ""
            settings = [f"{spell_name(setting.name)} = {spell(setting.value)}" for setting in expr.settings]
            return f"{spell_name(expr.function)}{brackets}({_parted([spell(arg) for arg in expr.args], settings)})"


def _binary(expr: tree.Binary, blank: str) -> str:
    if expr.op in _BINARY:
        _, left, right = _BINARY[expr.op]
    else:
        left, right = Rule.PRODUCT, Rule.SUM if _ends_in_sum(expr) else Rule.FACTOR
    gap = "" if expr.op == "^" else " " if expr.op in ("and", "or") else blank
    return f"{_within(expr.left, left, blank)}{gap}{expr.op}{gap}{_within(expr.right, right, blank)}"


def _parted(before: Sequence[str], after: Sequence[str]) -> str:
    """Arguments and settings, or inputs and options."""
    return ", ".join(before) + (f"; {', '.join(after)}" if after else "")


def spell_name(name: tree.Name) -> str:
    """A name, its numbers in braces."""
    return "".join(part if isinstance(part, str) else f"{{{spell_size(part)}}}" for part in name.parts)


def spell_brackets(brackets: tree.Brackets) -> str:
    """`[t,h]`, `[t, h: H]`, `[c -> h, d]`, `[s | s <= t]`."""
    text = _listed(brackets.items)
    if brackets.made is not None:
        text += " -> " + ", ".join(_subscript(item) for item in brackets.made)
    if brackets.guard is not None:
        text += f" | {spell(brackets.guard)}"
    return f"[{text}]"


def spell_indices(indices: Sequence[tree.Expr | tree.NewIndex] | None) -> str:
    """The brackets of a declaration or a left side; nothing where there are none."""
    return "" if indices is None else f"[{_listed(indices)}]"


def _listed(items: Sequence[tree.Expr | tree.NewIndex]) -> str:
    """Items after commas: without blanks up to the first that is more than a name or a step, `q[i,j, h: H, d: D]`."""
    text = ""
    spaced = False
    for index, item in enumerate(items):
        part = _subscript(item)
        spaced = spaced or not _SIMPLE.fullmatch(part)
        text += ("" if not index else ", " if spaced else ",") + part
    return text


def _subscript(item: tree.Expr | tree.NewIndex) -> str:
    if isinstance(item, tree.NewIndex):
        return f"{spell_name(item.name)}: {spell_size(item.size)}"
    return spell_size(item)


def spell_signature(params: Sequence[tree.Formal], options: Sequence[tree.Option]) -> str:
    """`(q[t,d], x: int; H = 4)`."""
    settings = [spell_name(o.name) + (f" = {spell_size(o.default)}" if o.default is not None else "") for o in options]
    return f"({_parted([spell_formal(param) for param in params], settings)})"


def spell_formal(param: tree.Formal | tree.Output) -> str:
    """`q[t,h,d]`, `tokens[t]: int`."""
    kind = getattr(param, "type", None)
    return spell_name(param.name) + spell_indices(param.indices) + (f": {kind}" if kind else "")


def spell_outputs(outputs: Sequence[tree.Output]) -> str:
    """`-> o[t,h,e], S`."""
    return "-> " + ", ".join(spell_formal(output) for output in outputs)


def spell_target(target: tree.Target) -> str:
    """`S[t,-1,h]`."""
    return spell_name(target.name) + spell_indices(target.indices)


