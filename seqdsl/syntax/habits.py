"""What is right in another language, at a token that the grammar does not accept: statements, operators, words, brackets.

The rules of `mistakes` that say what stands here instead. Entry points: `foreign_statement`, `host_call`, `foreign_operator`
and `RULES`, which come after what is wrong in any language.
"""

from __future__ import annotations

from seqdsl.diagnostics import Diagnostic, did_you_mean
from seqdsl.syntax.spot import LAYOUT, REDUCERS, Rule, Spot, in_words

FOREIGN_STATEMENTS = {
    **dict.fromkeys(("if", "elif", "else", "switch", "match"), "write `where(condition, x, y)`, or two mixers"),
    **dict.fromkeys(("while", "loop", "scan"), "a recurrence reads itself, `S[t] = a * S[t-1] + x`"),
    **dict.fromkeys(("return", "yield"), "outputs are named in the header, `-> y[t]`, and defined by equations"),
    **dict.fromkeys(("let", "var", "set", "def", "assert", "pass"), "write an equation, or a `claim`"),
}
STATEMENTS = ("index", "param", "const", "claim", "for")
MEMBERS = ("param", "claim", "combine", "identity", "lift", "project")
INSTEAD_OF_PAIR = {"**": "^", "||": "or", "<>": "!=", "=>": ">=", "=<": "<=", "/*": "#"}
CHOICE = "write `where(condition, x, y)`"
FOREIGN_WORDS = {
    **dict.fromkeys(("if", "then", "else"), CHOICE),
    "lambda": "declare a function at the outer margin, `fn g(x) = ..`",
    "is": "write `==` to compare",
    "mod": "write `%`",
    "div": "write `//`",
}


# Statements ----------------------------------------------------------------------------------------------------------


def foreign_statement(spot: Spot) -> Diagnostic | None:
    """`if`, `while`, `return`: names to the grammar, statements to who wrote them; and keywords misspelt, `claims causal`."""
    first = spot.before()
    if first is None or first is not spot.first or first.type != "NAME":
        return None
    if spot.kind in LAYOUT and spot.kind != "_NL" or "EQUAL" not in spot.accepted:
        return None
    help = FOREIGN_STATEMENTS.get(str(first), "")
    if not help and spot.kind == "NAME":
        help = did_you_mean(str(first), MEMBERS if spot.tokens[0].type == "MONOID" else STATEMENTS)
    return spot.fault("unknown-statement", f"there is no `{first}`", first.span, help=help) if help else None


def statement(spot: Spot) -> Diagnostic | None:
    """`index s = t`, `for l in range(4):`, `import gla`: a line that begins well and goes on otherwise."""
    shapes = {
        "INDEX": "write `index s over t`; several: `index s over t, r over u`",
        "FOR": "a static loop is written `for l in 0..4:`, and does not reach 4",
        "IMPORT": "write `import gla, GLA from gla`: mixers keep their names",
    }
    help = shapes.get(spot.header, "")
    if spot.first is None or not help or (spot.header == "FOR" and not {"IN", "RANGE"} & spot.accepted):
        return None
    return _unexpected(spot, help)


def left_side(spot: Spot) -> Diagnostic | None:
    """`(y, z) = g(x)`, `y(t) = x`, `y[t][c] = x`, `y: real = x`, and a line that should continue the one above."""
    if spot.first is None and spot.kind == "LPAR" and "NAME" in spot.accepted:
        return _unexpected(spot, "left sides stand without parentheses, `y, z = g(x)`")
    if spot.first is None and "NAME" in spot.accepted and spot.kind in ("PLUS", "MINUS", "STAR", "DIVIDE", "AND", "OR"):
        return _unexpected(spot, "a line that continues the one above is indented deeper")
    previous = spot.before()
    if spot.kind == "LPAR" and spot.accepted == {"NAME"} and previous is not None and previous.type == "ARROW":
        return _unexpected(spot, "outputs stand without parentheses, `-> y[t], z[t]:`")
    if "EQUAL" not in spot.accepted or spot.opener is not None:
        return None
    help = {
        "LPAR": "indices stand in brackets, `y[t]`",
        "LSQB": "all indices stand in one bracket, `y[t,c]`",
        "COLON": "write `=`; inputs and params alone have types",
    }.get(spot.kind, "")
    return _unexpected(spot, help) if help else None


# Operators and words -------------------------------------------------------------------------------------------------


def host_call(spot: Spot) -> Diagnostic | None:
    """`torch.exp(x)`, `x.sum()`."""
    reducer = spot.kind in REDUCERS and spot.kinds_before(2) == ("NAME", "DOT")
    if not reducer and (spot.kinds_before(3) != ("NAME", "DOT", "NAME") or spot.kind not in ("LPAR", "DOT")):
        return None
    names = [spot.before(2), spot.before(0)] if reducer else [spot.before(3), spot.before(1)]
    assert names[0] is not None and names[1] is not None
    return spot.fault("host-language", f"`{names[0]}.{names[1]}`: there are no modules and no methods",
                      names[0].span.to(names[1].span),
                      help=f"write `{names[1]}{'[d] x' if reducer else '(x)'}`; a point reads a field inside a monoid")


def foreign_operator(spot: Spot) -> Diagnostic | None:
    """`**`, `||`, `<>`."""
    for first, second in ((spot.before(), spot.bad), (spot.bad, spot.next)):
        pair = f"{first}{second}"
        instead = "->" if pair == "=>" and "ARROW" in spot.accepted else INSTEAD_OF_PAIR.get(pair)
        if instead and first is not None and second is not None and first.span.end == second.span.start:
            return spot.fault("unexpected-token", f"there is no `{pair}`", first.span.to(second.span),
                              help=f"write `{instead}`")
    return None


def foreign_word(spot: Spot) -> Diagnostic | None:
    """`a if b else c`, `lambda a: a`, `a + not b`, and a remark after `//`."""
    if spot.kind == "NOT" and "NUMBER" in spot.accepted:
        return spot.fault("unexpected-token", "`not` is looser than arithmetic", help="parenthesise: `(not b)`")
    previous = spot.before()
    if previous is None or "CIRCUMFLEX" not in spot.accepted and "PLUS" not in spot.accepted:
        return None
    if spot.header == "CLAIM" and spot.text in ("if", "where", "given", "unless"):
        return _no_word(spot, "a claim's condition follows `when`")
    for word in (previous, spot.bad):
        if word is not None and word.type == "NAME" and str(word) in FOREIGN_WORDS and spot.kind not in LAYOUT:
            in_guard = str(word) == "if" and spot.opener is not None and spot.opener.type == "LSQB"
            help = "a guard follows `|`, `sum[s | s <= t]`" if in_guard else FOREIGN_WORDS[str(word)]
            return spot.fault("unexpected-token", f"there is no `{word}` in an expression", word.span, help=help)
    before = spot.tokens[spot.line_start : spot.at]
    if spot.kind == "NAME" and before[-1].type == "NAME" and any(str(token) == "//" for token in before):
        return spot.fault("unexpected-token", f"unexpected `{spot.text}`: `//` divides and rounds down",
                          help="a comment starts with `#`")
    return None


def semicolon(spot: Spot) -> Diagnostic | None:
    """`y = x;`, `y[t;c]`, `where(b; x, y)`."""
    if spot.kind == "SEMICOLON":
        inside = spot.opener.type if spot.opener is not None else ""
        return _unexpected(spot, {
            "": "each equation has a line of its own, which nothing ends",
            "LSQB": "indices are separated by `,`",
        }.get(inside, "only calls have settings: these are no arguments"))
    behind = spot.open_brackets and any(t.type == "SEMICOLON" for t in spot.tokens[spot.open_brackets[-1] : spot.at])
    if behind and spot.opens_arguments and spot.header not in ("MIXER", "FN", "MONOID"):
        return _unexpected(spot, "after `;` stand settings, `eps = 1e-6`; arguments are separated by `,`")
    return None


# Brackets ------------------------------------------------------------------------------------------------------------


def slice_(spot: Spot) -> Diagnostic | None:
    """`x[:, 1]`, `x[1:]`, `x[..., c]`."""
    inside = spot.opener is not None and spot.opener.type == "LSQB"
    if not inside or spot.kind not in ("COLON", "RANGE") or not {"NUMBER", "CIRCUMFLEX"} & spot.accepted:
        return None
    return spot.fault("unexpected-token", f"unexpected `{spot.text}`: there are no slices",
                      help="what is omitted is read at its own index; one place is `x[0]`, an earlier one `x[t-1]`, "
                           "a window `sum[j: 4] x[t-j]`")


def bracket_after_bracket(spot: Spot) -> Diagnostic | None:
    """`x[t][c]`, `g(x)[0]`, `g(x).o`."""
    previous = spot.before()
    if previous is None or previous.type not in ("RSQB", "RPAR") or "PLUS" not in spot.accepted:
        return None
    if spot.kind == "LSQB" and previous.type == "RSQB":
        return _unexpected(spot, "all subscripts stand in one bracket, `x[t,c]`")
    if spot.kind in ("LSQB", "DOT"):
        return _unexpected(spot, "name it in an equation of its own, `z = g(x)`, and read `z`")
    return None


def list_(spot: Spot) -> Diagnostic | None:
    """`[1, 2]`, `{..}` where an expression should begin."""
    if spot.kind != "LSQB" or "NUMBER" not in spot.accepted or "LPAR" not in spot.accepted:
        return None
    return _unexpected(spot, "the values of a `const` stand in parentheses, `(1, 2)`" if spot.header in ("CONST", "PARAM")
                       else "brackets follow a name: there are no lists")


def guard(spot: Spot) -> Diagnostic | None:
    """`sum[s | a, b]`, `sum[s | a | b]`, `softmax[s](x | a)`, `x[t c]`."""
    opener, kinds = spot.opener, [token.type for token in spot.tokens[(spot.open_brackets or (0,))[-1] : spot.at]]
    if opener is not None and opener.type == "LSQB" and spot.kind == "NAME" and "COMMA" in spot.accepted:
        return _unexpected(spot, "indices are separated by `,`")
    if opener is None or spot.kind not in ("VBAR", "COMMA") or "PLUS" not in spot.accepted:
        return None
    if opener.type == "LSQB" and "VBAR" in kinds:
        return _unexpected(spot, "conditions of a guard are joined by `and`")
    if opener.type == "LPAR" and spot.kind == "VBAR":
        return _unexpected(spot, "a guard stands behind the indices, `softmax[s | s <= t](x)`")
    return None


def _no_word(spot: Spot, help: str) -> Diagnostic:
    return spot.fault("unexpected-token", f"there is no `{spot.text}` here", help=help)


def _unexpected(spot: Spot, help: str) -> Diagnostic:
    """The fault at the token, with what to write; at a line's end, that it ends too early."""
    if spot.kind in LAYOUT:
        return spot.fault("unexpected-end", f"the line ends where {in_words(spot.accepted)} was expected",
                          label="something is missing here", help=help)
    return spot.fault("unexpected-token", f"unexpected `{spot.text}`: expected {in_words(spot.accepted)}", help=help)


RULES: tuple[Rule, ...] = (statement, left_side, foreign_word, semicolon, slice_, bracket_after_bracket, list_, guard)
