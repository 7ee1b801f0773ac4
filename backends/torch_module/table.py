"""The table of elementwise operators: operator -> torch text, and the text for Python numbers.

A row holds the text for tensors, its precedence, and the text for numbers that Python knows at each call (sizes,
options, positions of a loop); `{0}`, `{1}` are operands. An operator on numbers without such text becomes a tensor.
Operators that bind indices have their own functions in `reductions`, `contractions`, `transforms`; `covered` lists all.
"""

from __future__ import annotations

from dataclasses import dataclass

from seqdsl.ir.node import Node, walk

from .values import AND, ATOM, BIT_AND, BIT_OR, BIT_XOR, COMPARE, NOT, OR, POWER, PRODUCT, SUM, UNARY


@dataclass(frozen=True)
class Text:
    """`infix` rows put parentheses by precedence; others are calls, whose operands need none."""

    tensor: str
    level: int = ATOM
    number: str = ""
    number_level: int = ATOM
    infix: bool = False
    helpers: tuple[str, ...] = ()


def _infix(sign: str, level: int, number: str = "", number_level: int = 0) -> Text:
    return Text(f"{{0}} {sign} {{1}}", level, f"{{0}} {number or sign} {{1}}", number_level or level, True)


def _call(tensor: str, number: str = "", *helpers: str) -> Text:
    return Text(tensor, ATOM, number, ATOM, False, helpers)


OPS_TEXT: dict[str, Text] = {
    "add": _infix("+", SUM),
    "sub": _infix("-", SUM),
    "mul": _infix("*", PRODUCT),
    "div": _infix("/", PRODUCT),
    "exact_div": Text("{0} // {1}", PRODUCT, "_exact({0}, {1})", ATOM, False, ("_exact",)),
    "floor_div": _infix("//", PRODUCT),
    "mod": _infix("%", PRODUCT),
    "pow": _infix("**", POWER),
    "neg": Text("-{0}", UNARY, "-{0}", UNARY, True),
    "maximum": _call("torch.maximum({0}, {1})", "max({0}, {1})"),
    "minimum": _call("torch.minimum({0}, {1})", "min({0}, {1})"),
    "lt": _infix("<", COMPARE),
    "le": _infix("<=", COMPARE),
    "eq": _infix("==", COMPARE),
    "ne": _infix("!=", COMPARE),
    "and": _infix("&", BIT_AND, "and", AND),
    "or": _infix("|", BIT_OR, "or", OR),
    "not": Text("~{0}", UNARY, "not {0}", NOT, True),
    "where": Text("torch.where({0}, {1}, {2})"),
    "exp": _call("torch.exp({0})", "math.exp({0})"),
    "log": _call("torch.log({0})", "math.log({0})"),
    "log2": _call("torch.log2({0})", "math.log2({0})"),
    "sqrt": _call("torch.sqrt({0})", "math.sqrt({0})"),
    "abs": _call("torch.abs({0})", "abs({0})"),
    "sin": _call("torch.sin({0})", "math.sin({0})"),
    "cos": _call("torch.cos({0})", "math.cos({0})"),
    "tanh": _call("torch.tanh({0})", "math.tanh({0})"),
    "sigmoid": _call("torch.sigmoid({0})"),
    "log_sigmoid": _call("nn.functional.logsigmoid({0})"),
    "softplus": _call("nn.functional.softplus({0}, threshold=40.0)"),
    "inv_softplus": _call("_inv_softplus({0})", "", "_inv_softplus"),
    "silu": _call("nn.functional.silu({0})"),
    "gelu": _call("nn.functional.gelu({0})"),
    "relu": _call("torch.relu({0})", "max({0}, 0)"),
    "leaky_relu": _call("nn.functional.leaky_relu({0}, {slope})"),
    "elu": _call("nn.functional.elu({0})"),
    "erf": _call("torch.erf({0})"),
    "expm1": _call("torch.expm1({0})", "math.expm1({0})"),
    "log1p": _call("torch.log1p({0})", "math.log1p({0})"),
    "logaddexp": _call("_logaddexp({0}, {1})", "", "_logaddexp"),
    "clamp": _call("torch.clamp({0}, {1}, {2})", "min(max({0}, {1}), {2})"),
    "floor": _call("torch.floor({0}).long()", "math.floor({0})"),
    "ceil": _call("torch.ceil({0}).long()", "math.ceil({0})"),
    "sign": _call("torch.sign({0})"),
    "round": _call("torch.round({0})", "round({0})"),
    "step": _call("({0} >= 0).to(dtype)"),
    "stop": _call("{0}.detach()", "{0}"),
    "xor": _infix("^", BIT_XOR),
    "bit_and": _infix("&", BIT_AND),
    "bit_length": _call("_bit_length({0})", "({0}).bit_length()", "_bit_length"),
    "popcount": _call("_popcount({0})", "({0}).bit_count()", "_popcount"),
    "re": _call("torch.real({0})"),
    "im": _call("torch.imag({0})"),
    "conj": _call("torch.conj({0})"),
}
COMPLEX_TEXT = {**OPS_TEXT, "exp": _call("complex_exp({0})")}  # where the result is complex
# Written over their operand where nothing else reads that: their derivative is a function of their value.
IN_PLACE = frozenset("exp expm1 relu sigmoid sqrt tanh".split())
# `round(x; grad = identity)` and its like: the value of the row above, the derivative of `{0}` -> this.
SURROGATES: dict[str, str] = {
    "identity": "{0}",
    "clamp": "torch.clamp({0}, -1, 1)",
    "atan": "torch.atan(math.pi * {0}) / math.pi",
}
MARKED = frozenset("newton front level".split())  # a step, or its parts, that a form takes in another order than one by one
LEAVES = frozenset("const index size option first read".split())
RANDOM = frozenset("normal uniform orthogonal".split())
REDUCTIONS: dict[str, str] = {  # over trailing dimensions; `_name` is a function of `runtime`
    "max": "_amax",
    "min": "_amin",
    "logsumexp": "_logsumexp",
    "prod": "_prod",
    "any": "_any",
    "all": "_all",
    "argmax": "_argmax",
}
ALONG: dict[str, str] = {
    "softmax": "_softmax",
    "rank": "_rank",
    "rms_norm": "_rms_norm",
    "layer_norm": "_layer_norm",
    "l2_norm": "_l2_norm",
    "cumsum": "_cumsum",
}
SUMS = frozenset(("sum", "mean"))
MAPS: dict[str, str] = {
    "fft": "_fft",
    "ifft": "_ifft",
    "rfft": "_rfft",
    "irfft": "_irfft",
    "hadamard": "_hadamard",
    "matrix_taps": "matrix_taps",
    "dct": "_dct",
    "solve": "_solve",
    "qr": "_qr",
}
SCANS = frozenset(
    (
        "across_ranks",
        "affine_scan",
        "block_read",
        "block_solve",
        "block_state",
        "decayed_product",
        "decayed_read",
        "decayed_solve",
        "decayed_state",
        "front",
        "grid_scan",
        "level",
        "matrix_scan",
        "micro_solve",
        "newton",
        "over_ranks",
        "ring_scan",
    )
)
ONLINE = frozenset(("normalised_read", "normaliser"))
# Where an operand is not evaluated, this stands for it, so that neither the value nor the derivative is inf or nan.
UNSAFE: dict[str, str] = {
    "exp": "-math.inf",
    "expm1": "0",
    "log": "1",
    "log2": "1",
    "sqrt": "1",
    "log1p": "0",
    "inv_softplus": "1",
    "div": "1",
    "pow": "1",
    "logaddexp": "0",
}


PARTIAL = UNSAFE.keys() - {"exp", "expm1", "logaddexp"}  # not finite at some finite number


def varies(node: Node) -> bool:
    """Is the operand that could be outside the operator's domain data?"""
    which = {"div": (1,), "pow": (0,), "logaddexp": ()}.get(node.op, (0,))
    return any(n.op in ("read", "index") for k in which for n in walk(node.args[k]))


def covered() -> frozenset[str]:
    """Every operator that this backend has text for."""
    rows = (OPS_TEXT, LEAVES, RANDOM, REDUCTIONS, ALONG, SUMS, MAPS, SCANS, ONLINE, ("fold",))
    return frozenset(name for row in rows for name in row)
