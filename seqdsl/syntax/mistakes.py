"""What is wrong at a token that the grammar does not accept: one rule for each mistake people make.

`RULES` are tried in order and the first that knows the mistake speaks; the last one knows them all.
Entry points: `diagnose`, and `malformed_numbers`, which looks at neighbouring tokens before parsing.
"""

from __future__ import annotations

from collections.abc import Sequence

from seqdsl.diagnostics import Diagnostic, Faults, Span, did_you_mean
from seqdsl.syntax import habits
from seqdsl.syntax.layout import LINE_STARTS, MOST, PARTNER, Lexeme, after
from seqdsl.syntax.spot import DECLARATIONS, KEYWORDS, LAYOUT, OPERATORS, REDUCERS, TYPES, Rule, Spot, in_words

ALONG_AXES = frozenset("softmax max min prod logsumexp argmax any all rank fft ifft rfft irfft linear rms_norm "
                       "layer_norm l2_norm cumsum hadamard dct solve qr".split())
CONVERSIONS = {"REAL": "write `re(x)`", "INT": "write `floor(x)`", "BOOL": "write a comparison, `x != 0`",
               "COMPLEX": "write `a + 1i * b`"}
LONGEST_NUMBER = 60


def diagnose(spot: Spot) -> Diagnostic:
    """The fault at a spot."""
    return next(found for rule in RULES if (found := rule(spot)) is not None)


def malformed_numbers(tokens: Sequence[Lexeme]) -> Faults:
    """Numbers that run into a word or a point: `2x`, `.5`, `1.`, `0x1F`, `1e`; and `007`."""
    faults, at = Faults(), 0
    while at < len(tokens) and len(faults) < MOST:
        end = _word_end(tokens, at)
        if any(token.type == "NUMBER" for token in tokens[at:end]):
            faults += _three_points(tokens[max(0, at - 1) : end]) or _number_fault(tokens[at:end])
        at = end
    return faults


def _word_end(tokens: Sequence[Lexeme], at: int) -> int:
    """One past the words, numbers and points that follow `at` without a blank."""
    def part(token: Lexeme) -> bool:
        return token.type in ("NUMBER", "NAME", "DOT") or token.type in KEYWORDS

    end = at + 1
    while part(tokens[at]) and end < len(tokens) and part(tokens[end]) and (
            tokens[end].span.start == tokens[end - 1].span.end):
        end += 1
    return end


def _three_points(word: Sequence[Lexeme]) -> list[Diagnostic]:
    """`0...4`: a range and a point."""
    if len(word) != 3 or [token.type for token in word[:2]] != ["RANGE", "DOT"]:
        return []
    return [Diagnostic("unexpected-token", "unexpected `...`", word[0].span.to(word[1].span),
                       help=f"a range has two points, `0..{word[2]}`")]


def _number_fault(word: Sequence[Lexeme]) -> list[Diagnostic]:
    text, span = "".join(word), word[0].span.to(word[-1].span)
    if len(text) > LONGEST_NUMBER:
        return [Diagnostic("bad-number", f"a number of {len(text)} characters", span,
                           help=f"write at most {LONGEST_NUMBER}; reals have some 16 digits")]
    if len(word) == 1:
        zeros = text.startswith("0") and text[1:2].isdigit()
        return [Diagnostic("bad-number", f"`{text}` starts with a zero", span,
                           help=f"write `{text.lstrip('0') or '0'}`")] if zeros else []
    if word[0].type == "NAME" and word[1].type == "DOT":
        return [Diagnostic("bad-number", f"`{text}`: a number stands in place of a field", span,
                           help=f"an element of a tensor is read by brackets, `{word[0]}[{word[-1]}]`")]
    if word[0].type == "DOT" and len(word) == 2:
        return [Diagnostic("bad-number", f"`{text}` has no digit before the point", span, help=f"write `0{text}`")]
    if word[-1].type == "DOT" and len(word) == 2:
        return [Diagnostic("bad-number", f"`{text}` has no digit after the point", span, help=f"write `{text}0`")]
    product = len(word) == 2 and word[1].type == "NAME" and text[1:2] not in ("x", "_", "e", "E")
    return [Diagnostic("bad-number", f"`{text}` is no number", span,
                       help=f"write `{word[0]}i`" if len(word) == 2 and word[1] in ("j", "J") else
                       f"write a product as `{word[0]} * {word[1]}`" if product else
                       "numbers are decimal: `2`, `0.5`, `1e-6`, `1i`")]


# Words in the wrong place --------------------------------------------------------------------------------------------


def outside_declarations(spot: Spot) -> Diagnostic | None:
    """A line at the margin that begins no declaration."""
    if spot.start != "start" or spot.at != 0 or spot.kind in DECLARATIONS:
        return None
    if spot.kind == "FROM":
        return spot.fault("unexpected-token", "an import does not begin with `from`",
                          help="write `import gla, GLA from gla`")
    if spot.text in ("def", "function", "class", "module", "kernel", "layer"):
        return spot.fault("unknown-statement", f"there is no `{spot.text}`",
                          help="write `mixer`, or `fn` for a function")
    meant = did_you_mean(spot.text, ("mixer", "monoid", "import", "fn"))
    if meant and spot.next is not None and spot.next.type == "NAME":
        return spot.fault("unknown-statement", f"there is no `{spot.text}`", help=meant)
    return spot.fault("statement-outside", f"`{spot.text}` stands in no mixer", label="a declaration was expected",
                      help="equations are indented, below a header `mixer name(..) -> ..:`")


def misplaced_line(spot: Spot) -> Diagnostic | None:
    """A declaration inside a block, or `index`, `const`, `for` in a monoid."""
    if spot.first is not None or spot.kind not in LINE_STARTS:
        return None
    if spot.kind in DECLARATIONS:
        return spot.fault("nested-declaration", f"`{spot.text}` stands inside a block",
                          help="declarations stand at the outer margin; a mixer calls another by its name")
    return spot.fault("unknown-member", f"a monoid has no `{spot.text}`",
                      help="it stands inside `combine(a, b):` or `project -> y:`")


def member_equation(spot: Spot) -> Diagnostic | None:
    """`w[e] = ..` directly in a monoid."""
    first = spot.before()
    inside = spot.tokens[0].type == "MONOID" and {"EQUAL", "ARROW", "LPAR"} <= spot.accepted
    if spot.kind != "LSQB" or not inside or first is None or first is not spot.first:
        return None
    return spot.fault("unknown-member", f"a monoid has no member `{first}`", first.span,
                      help="equations stand inside `combine(a, b):` or `project -> y:`")


def sum_in_wrong_place(spot: Spot) -> Diagnostic | None:
    """A sum as an exponent, or right after `a / sum[s]`."""
    if spot.kind not in REDUCERS or "NUMBER" not in spot.accepted or "LPAR" not in spot.accepted:
        return None
    previous = [kind for kind in spot.kinds_before(len(spot.tokens)) if kind != "MINUS"]
    if previous and previous[-1] == "RSQB":
        return spot.fault("sum-after-division",
                          f"after a division the body of a sum is one factor, not a `{spot.text}`",
                          help=f"parenthesise: `/ ({spot.text}[..] ..)`")
    return spot.fault("sum-in-power", f"a `{spot.text}` is no operand of `^`",
                      help=f"parenthesise: `^({spot.text}[..] ..)`")


def after_divided_sum(spot: Spot) -> Diagnostic | None:
    """`a / sum[s] b * c`: the only place where a product cannot go on but a sum of terms can."""
    if spot.kind not in ("STAR", "DIVIDE") or "PLUS" not in spot.accepted:
        return None
    return spot.fault("sum-after-division", f"`{spot.text}` after a division by a sum: does it belong to the sum?",
                      label="nothing may follow in this product",
                      help=f"parenthesise: `(a / sum[s] b) {spot.text} c`, or `a / (sum[s] b {spot.text} c)`")


def bare_reducer(spot: Spot) -> Diagnostic | None:
    """`sum(x)`, `sum x`."""
    previous = spot.before()
    if previous is None or previous.type not in REDUCERS or spot.accepted != {"LSQB"}:
        return None
    return spot.fault("sum-without-index", f"`{previous}` does not say over what", previous.span,
                      help=f"write the index in brackets, then the body: `{previous}[d] x`")


def keyword_as_name(spot: Spot) -> Diagnostic | None:
    """A keyword where a name could stand."""
    first = spot.before()
    names = {"NAME", "NUMBER", "SUM"} & spot.accepted
    defined = first is not None and first is spot.first and spot.kind in ("LSQB", "EQUAL")
    if defined and first is not None and first.type in KEYWORDS and names:
        spot = Spot(spot.tokens, spot.at - 1, frozenset({"NAME"}), spot.start)
    connects = spot.kind in ("AND", "OR", "NOT", "WHEN") and "NUMBER" in spot.accepted
    if spot.kind not in KEYWORDS or "NAME" not in spot.accepted or connects:
        return None
    if spot.kind == "PER" and spot.opens_arguments and spot.next is not None and spot.next.type == "EQUAL":
        return _setting_as_argument(spot, spot.span)
    called = spot.next is not None and spot.next.type == "LPAR"
    return spot.fault("keyword-as-name", f"`{spot.text}` is a keyword and cannot be a name",
                      help=CONVERSIONS[spot.kind] if called and spot.kind in CONVERSIONS else
                      f"choose another, `{spot.text}_` or `{spot.text[0]}`")


# Headers and blocks --------------------------------------------------------------------------------------------------


def missing_arrow(spot: Spot) -> Diagnostic | None:
    """A header without `->`."""
    if spot.kind not in ("COLON", "_NL") and not spot.begins_physical_line:
        return None
    if spot.header not in ("MIXER", "FN") or spot.open_brackets or "ARROW" not in spot.accepted:
        return None
    previous = spot.before()
    other = "" if spot.header == "MIXER" else ", or `= expression`"
    return spot.fault("missing-arrow", f"this {spot.header.lower()} does not say what it gives",
                      None if spot.kind == "COLON" or previous is None else after(previous),
                      label="`->` was expected here", help=f"write `-> y[t]:`{other}")


def missing_colon(spot: Spot) -> Diagnostic | None:
    """A header that ends without `:`; the block below then looks like its continuation."""
    ends = spot.kind == "_NL" or spot.begins_physical_line
    previous = spot.before()
    if not ends or "COLON" not in spot.accepted or spot.open_brackets or previous is None or "_NL" in spot.accepted:
        return None
    return spot.fault("missing-colon", "this line opens a block and does not end with `:`", after(previous),
                      help="write `:` at its end")


def beside_header(spot: Spot) -> Diagnostic | None:
    """A type after the outputs, or the body in the header's line."""
    previous = spot.before()
    if previous is None or previous.type != "COLON" or spot.accepted != {"_NL"}:
        return None
    typed = spot.kind in TYPES or (spot.kind == "NAME" and spot.next is not None and
                                   spot.next.type in ("COLON", "COMMA"))
    if typed and spot.header in ("MIXER", "FN", "NAME"):
        return spot.fault("type-on-output", "outputs have no types: they follow from their equations",
                          help=f"leave out `: {spot.text}`; inputs and params may have types")
    return spot.fault("missing-block", "the block stands below its header, not beside it",
                      help="begin a new line, indented by four blanks")


def unknown_type(spot: Spot) -> Diagnostic | None:
    """A type that is none of the four."""
    if not TYPES <= spot.accepted or spot.kind in LAYOUT:
        return None
    floats = spot.text.lower().startswith(("float", "double", "half", "bfloat", "number", "tensor"))
    return spot.fault("unknown-type", f"there is no type `{spot.text}`",
                      help="leave it out: values are real by default" if floats else
                      "the types are `int`, `bool`, `complex` and `real`")


def import_path(spot: Spot) -> Diagnostic | None:
    """`import a from lib.gla`."""
    if spot.header != "IMPORT" or spot.kind not in ("DOT", "DIVIDE", "RANGE"):
        return None
    return spot.fault("import-path", "an import names a file, not a path",
                      help="write the file's name without `.seq`; it stands beside this file or in the library")


# Left sides and equality ---------------------------------------------------------------------------------------------


def not_an_index(spot: Spot) -> Diagnostic | None:
    """`y[t+1] = ..`, `y[2*t] = ..`, `mixer f(x[0])`: left sides and headers declare."""
    inside = spot.opener is not None and spot.opener.type == "LSQB"
    left = spot.header in ("MIXER", "FN", "MONOID", "PARAM", "CONST") or "EQUAL" not in spot.kinds_before(spot.at)
    if not inside or not left or spot.header in ("CLAIM", "FOR") or "CIRCUMFLEX" in spot.accepted:
        return None
    goes_on = spot.kind in ("PLUS", "MINUS", "STAR", "DIVIDE", "CIRCUMFLEX", "LSQB", "LPAR", "COMPARE")
    if goes_on and "RSQB" in spot.accepted and "COMMA" in spot.accepted:
        help = "write a constant point `-1`, `0`, `|t|`, or shift the right side: `y[t] = x[t-1]`"
        return spot.fault("not-an-index", "the left side of an equation has indices and constants, no arithmetic",
                          help=help if spot.header == "NAME" else "declare the index here and compute where it is read")
    if spot.kind in ("NUMBER", "MINUS", "VBAR") and "NUMBER" not in spot.accepted and "NAME" in spot.accepted:
        return spot.fault("not-an-index", f"`{spot.text}` where an index is declared",
                          help="name the index, `x[t]`, and read the point in an equation, `x[0]`")
    return None


def equation_sign(spot: Spot) -> Diagnostic | None:
    """`y == x`, `y := x`, `y += x`, `y <- x` for an equation."""
    arrow = spot.text == "<" and spot.next is not None and spot.next.type == "MINUS"
    sign = spot.text if spot.kind == "COMPARE" and not arrow else spot.text + str(spot.next or "")
    touching = spot.next is not None and (spot.next.type == "EQUAL" or arrow) and spot.touches(spot.next)
    if "EQUAL" not in spot.accepted or not (spot.text == "==" or (touching and spot.kind != "NAME")):
        return None
    span = spot.span.to(spot.next.span) if touching and spot.next else spot.span
    return spot.fault("equation-sign", f"an equation is written with `=`, not `{sign}`", span,
                      help="each point is defined once; what was before is read by its index, `S[t-1]`")


def assignment(spot: Spot) -> Diagnostic | None:
    """`=` inside an expression, or a setting before the semicolon."""
    if spot.kind != "EQUAL":
        return None
    previous = spot.before()
    settings = spot.opens_arguments and previous is not None and previous.type == "NAME"
    if settings and spot.kinds_before(2)[0] in ("LPAR", "COMMA"):
        return _setting_as_argument(spot, previous.span if previous else spot.span)
    if "COMPARE" not in spot.accepted and "CIRCUMFLEX" not in spot.accepted:
        return None
    return spot.fault("assignment-in-expression", "`=` inside an expression", help="write `==` to compare")


def _setting_as_argument(spot: Spot, span: Span) -> Diagnostic:
    """`name = ..` among the arguments of a call or the inputs of a header; `span` is that of the name."""
    if spot.header in DECLARATIONS and spot.open_brackets[-1] - spot.line_start == 2:
        return spot.fault("setting-before-semicolon", "options stand after a `;`", span, help=f"write `; {span.text} = ..`")
    alone = spot.kinds_before(2)[0] == "LPAR"
    return spot.fault("setting-before-semicolon", "settings stand after a `;`", span,
                      help=f"write `; {span.text} = ..`" + ("; arguments have no names, only places" if alone else ""))


# Brackets ------------------------------------------------------------------------------------------------------------


def empty_brackets(spot: Spot) -> Diagnostic | None:
    """`x[]` in an expression, `()`."""
    previous = spot.before()
    if previous is None or (previous.type, spot.kind) not in (("LSQB", "RSQB"), ("LPAR", "RPAR")):
        return None
    return spot.fault("empty-brackets", "nothing stands between these brackets", previous.span.to(spot.span),
                      help="a scalar and a whole tensor are read by their bare name" if spot.kind == "RSQB" else "")


def unclosed(spot: Spot) -> Diagnostic | None:
    """A new equation begins inside a bracket."""
    if not spot.begins_physical_line or spot.opener is None or not {"RPAR", "RSQB"} & spot.accepted:
        return None
    beside = [token.type for token in spot.tokens[spot.at :] if token.span.line == spot.span.line]
    if "EQUAL" not in beside:
        return None
    return spot.fault("unclosed-bracket", f"`{spot.opener}` is not closed before the next line begins",
                      spot.opener.span, label="opened here",
                      help=f"write `{PARTNER[str(spot.opener)]}` where it ends")


def misplaced_tuple(spot: Spot) -> Diagnostic | None:
    """`2 * (a, b)`."""
    if spot.kind != "COMMA" or spot.opener is None or spot.opener.type != "LPAR" or spot.opens_arguments:
        return None
    if "RPAR" not in spot.accepted:
        return None
    return spot.fault("misplaced-tuple",
                      "a tuple is the whole value of a `const`, a `param`, an `identity` or a `lift`",
                      help="several values along an axis are a tensor, `where(i == 0, a, b)`")


# Operators -----------------------------------------------------------------------------------------------------------


def continued_line(spot: Spot) -> Diagnostic | None:
    """A line indented too deep is taken for the continuation of the one above."""
    if not spot.begins_physical_line or spot.open_brackets or "_NL" not in spot.accepted:
        return None
    return spot.fault("unexpected-indent", "this line continues the one above, because it is indented deeper",
                      help="align it with the line above if it is an equation of its own")


def prefix_call(spot: Spot) -> Diagnostic | None:
    """`prod[s] x`: only sum and mean are prefixes."""
    operand = spot.kind in ("NAME", "NUMBER", "VBAR")
    previous = spot.before()
    if not operand or previous is None or previous.type != "RSQB" or "LPAR" not in spot.accepted:
        return None
    depth, index = 0, spot.at
    while index > spot.line_start and (depth or index == spot.at):
        index -= 1
        depth += (spot.tokens[index].type == "RSQB") - (spot.tokens[index].type == "LSQB")
    name = spot.tokens[index - 1]
    if str(name) not in ALONG_AXES:
        return None
    return spot.fault("missing-arguments", f"`{name}` is a call: its body stands in parentheses",
                      name.span, help=f"write `{name}[..](..)`; only `sum` and `mean` stand before their body")


def ended(spot: Spot) -> Diagnostic | None:
    """The line, or a name's braces, ended too early."""
    if spot.kind not in LAYOUT:
        return None
    what = "line" if spot.start == "start" else "arithmetic in the braces"
    previous, bare = spot.before(), "NUMBER" in spot.accepted
    help = "what goes on in the next line is indented deeper" if previous is not None and previous.type == "EQUAL" else ""
    if bare and previous is not None and previous.type in OPERATORS:
        help = f"write what follows `{previous}`, in this line or, indented deeper, in the next"
    if bare and previous is not None and previous.type == "RSQB":
        help = "the body stands behind the brackets, `sum[d] x`"
    return spot.fault("unexpected-end", f"the {what} ends where {in_words(spot.accepted)} was expected",
                      label="something is missing here", help=help)


def unexpected(spot: Spot) -> Diagnostic:
    """Any other."""
    operand = spot.kind in ("NAME", "NUMBER", "LPAR", *REDUCERS) and "STAR" in spot.accepted and "RANGE" not in spot.accepted
    return spot.fault("unexpected-token", f"unexpected `{spot.text}`: expected {in_words(spot.accepted)}",
                      help=f"a product is written with `*`{_or_a_call(spot)}" if operand else _missing(spot))


def _missing(spot: Spot) -> str:
    """What may have been left out before the token."""
    if spot.accepted == {"VBAR"}:
        return "the length of an axis is `|t|`; a guard stands behind the indices, `sum[s | s < t]`"
    signs = [sign for kind, sign in (("EQUAL", "="), ("ARROW", "->"), ("COMMA", ","), ("SEMICOLON", ";")) if kind in spot.accepted]
    if spot.kind in ("NAME", "NUMBER") and signs:
        separates = spot.kind == "NAME" and bool(spot.open_brackets)
        likely = [sign for sign in signs if (sign in ",;") == separates]
        return f"write `{'` or `'.join(likely or signs)}` before it"
    if "NAME" in spot.accepted and spot.kind not in ("NAME", "NUMBER"):
        return "something is missing before it, or it is one too many"
    return ""


def _or_a_call(spot: Spot) -> str:
    """`M[t] x`: what the brackets may belong to."""
    previous = spot.before()
    return ", and an operation along an axis is a call, `M[t](x)`" if previous and previous.type == "RSQB" else ""


RULES: tuple[Rule, ...] = (
    outside_declarations, misplaced_line, habits.foreign_statement, member_equation,
    missing_arrow, missing_colon, beside_header, unknown_type, import_path,
    sum_in_wrong_place, after_divided_sum, bare_reducer, habits.host_call, keyword_as_name,
    unclosed, continued_line, not_an_index, habits.foreign_operator, equation_sign, assignment, empty_brackets, misplaced_tuple,
    prefix_call, *habits.RULES, ended, unexpected,
)
