"""The table of operators: one row each, and `make`, the only way to build a node.

A row holds what every layer may ask of an operator: arity, the dtype of the result, how it binds indices, the numpy
reference, and algebraic facts (each fact is property-tested in tests/ir). Derivatives are the sibling tables of
`derivatives`, values those of `reference`; the name that a user writes is a row of `semantics.builtins`, the text of a
backend one of its own tables. The algebra has rows too, by which it sees more: what an operator is made of
(`algebra.expand`), its bounds (`interval`), its exact values (`numbers`, `tower`); without them it proves less.

Binding:
  ""        elementwise: operands broadcast by index name. One row only forms make: `newton(f, start, slopes..)` is f,
            the step of a recurrence that may be solved for all positions at once; the slopes are its derivatives by
            each state of the loop (diagonals, then sums of matrices over their columns, where entries mix), and start is
            the state before the first position. Another is `front(f)`, which is f,
            the step of a recurrence over two axes at the cells of a front; its options are the geometry of the grid
            (`seqdsl.forms.wavefront`). A third is `level(f)`, which is f, a part of the step of a recurrence that may be
            evaluated at all positions of a level at once (`seqdsl.forms.levels`); a fourth `over_ranks(f)`, which is f, a
            prefix fold of a declared monoid along a stream that lies in pieces on several ranks
  "reduce"  attr = (indices, options), args = (body, guard): the indices are bound (`sum mean prod max min logsumexp
            any all argmax`); the reference receives the body with the reduced axes last and flattened in row-major
            order, and the guard as a mask. Two rows that only forms make: `normaliser(z)`, a logsumexp that is
            evaluated block by block, and `normalised_read(z, v)`, with two bodies: sum[s | guard]
            softmax[s | guard](z) * v as one reduction, 0 where the guard is empty
  "along"   attr = (indices, options), args = (body, guard): works along the indices and keeps them
            (`softmax rank rms_norm layer_norm l2_norm`): the value at s depends on the body at all s
  "map"     attr = (consumed, made, options), args = the operands: `fft`, `solve`, ..: consumed indices are bound,
            made ones appear; consumed == made for transforms without an arrow. Only forms make `matrix_taps(c, A, b)`:
            the taps sum[n,m] c[n] (A^l)[n,m] b[m] at every l, attr = ((n.., m..), (l), ())
  "scan"    attr = (indices, consumed, options), args = the operands: rows that only forms make; works along the first
            index and keeps it, and contracts the consumed ones. `affine_scan(a, b, start)`: h[t] = a[t] h[t-1] + b[t],
            h[-1] = start. `decayed_read(q, k, v, a, start)`: the read sum[consumed] q * S of the state
            S[t] = a[t] S[t-1] + k[t] v[t] (of S[t-1] if `strict`), without S. Options: `log` says that the operand a
            is the natural logarithm of the decay, `reverse` that time runs downwards, `chunk` how many positions a
            backend takes at a time (0: all, the quadratic form). `decayed_solve(w, u, x, a, start)` is the feedback
            y[t,r] = x[t,r] + sum[consumed] w[t,r] * S[t-1] of the state S[t] = a[t] S[t-1] + sum[r] u[t,r] y[t,r];
            the rank indices r follow the time in attr, and are kept; with `after` it reads a[t] S[t-1].
            `decayed_product(k, v, a, start, q, p, b, start')` is sum[consumed] F[t-1] * G[|t|-2-t] for the state
            F[t] = a[t] F[t-1] + k[t] v[t] and the state G of q, p, b: what a decay's cotangent is, with G the adjoint
            in mirrored time; `log` and `log_other` say which of the decays are logarithms.
            `micro_solve` is the same where the rank indices are steps in order, each with its own decay, `width` of
            them at once (the innermost index).
            `matrix_scan(A, b, start)`: h[t,n] = sum[m] A[t,n,m] h[t-1,m] + b[t,n]; the indices n follow the time in
            attr and are kept, the indices m, of the same lengths, are the consumed ones; start carries n.
            `grid_scan(A, C, b, top, left)`: h[i,j,n] = sum[m] (A[i,j,n,m] h[i-1,j,m] + C[i,j,n,m] h[i,j-1,m]) + b[i,j,n],
            the two axes first in attr, top and left what lies before the first row and column; with `up`, i runs
            downwards, with `back`, j does.
            `ring_scan(a, b, start)`: `affine_scan` over another ring, h[t] = (a[t] mul h[t-1]) add b[t].
            `across_ranks(a, b, start)`: of a recurrence along a stream that lies in pieces on several ranks, the state where
            this piece begins, and the one after the last piece, along an index of 2 that the operator makes; (a, b) is
            the element that this piece is, `acts` how it acts on a state: a is a factor, the logarithm of one ("exp"), a
            matrix, whose rows are kept and whose columns are the consumed ones, or a ring's; with one rank, start, a start + b.
            `block_read`, `block_solve` and `block_state` are `decayed_read`, `decayed_solve` and `decayed_state` of a
            state in parts, S[t,p] = sum[m] a[t,p,m] S[t-1,m] + k[t,p] v[t]: of the consumed indices the first is p, the
            second m, and the others are rows (`block_state` consumes the time and m, and keeps p)
  "last"    the same attr, but the index is consumed and the rows stay: `decayed_state(k, v, a, start)` is that S at
            the last position, the second part of attr naming the rows that k carries
  "fold"    attr = (monoid, indices, made), args = (lift arguments.., guard): the declared monoid's fold over the guard's
            points, by the balanced tree; the value has the indices of the monoid's project
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from typing import Any

from seqdsl.ir.node import Node, interned


class _Names:
    """`ref.add` is the name "add": numpy is loaded when a reference is first called, not to check a file."""

    def __getattr__(self, name: str) -> str:
        return name


ref = _Names()
_ORDER = ("bool", "int", "real", "complex")


@cache
def _join(*dtypes: str) -> str:
    return max(dtypes, key=_ORDER.index)


def _arithmetic(*dtypes: str) -> str:
    return _join("int", *dtypes)


def _real_at_least(*dtypes: str) -> str:
    return _join("real", *dtypes)


def _always(dtype: str) -> Callable[..., str]:
    return lambda *dtypes: dtype


def _same(*dtypes: str) -> str:
    return _join(*dtypes)


def _choice(*dtypes: str) -> str:
    return _join(*dtypes[1:])


def _parts(dtype: str) -> str:
    return "real" if dtype == "complex" else dtype


@dataclass(frozen=True)
class Op:
    """One row. `arity` counts operands (None: any number); `dtype` maps operand dtypes to the result's;
    `facts` are names of laws that hold on the domain."""

    name: str
    arity: int | None
    dtype: Callable[..., str]
    meaning: str | None  # the name of its function in `reference`
    binding: str = ""
    facts: frozenset[str] = frozenset()
    options: tuple[tuple[str, Hashable], ...] = ()  # names and defaults of options the user may set
    domain: str = "complex"  # the largest dtype operands may have

    @cached_property
    def reference(self) -> Callable[..., Any] | None:
        """The float64 numpy meaning; None for leaves, random draws and folds."""
        if self.meaning is None:
            return None
        found: Callable[..., Any] = getattr(import_module("seqdsl.ir.reference"), self.meaning)
        return found


def _row(
    name: str,
    arity: int | None,
    dtype: Callable[..., str],
    reference: str | None,
    facts: str = "",
    binding: str = "",
    domain: str = "complex",
    **options: Hashable,
) -> Op:
    return Op(name, arity, dtype, reference, binding, frozenset(facts.split()), tuple(options.items()), domain)


_ROWS = [
    # leaves
    _row("const", 0, _same, None),
    _row("index", 0, _always("int"), None),
    _row("size", 0, _always("int"), None),
    _row("option", 0, _always("int"), None),
    _row("first", 0, _always("int"), None),
    _row("read", None, _same, None),
    # arithmetic
    _row("add", 2, _arithmetic, ref.add, "associative commutative"),
    _row("sub", 2, _arithmetic, ref.sub),
    _row("mul", 2, _arithmetic, ref.mul, "associative commutative distributes_over_add"),
    _row("div", 2, _real_at_least, ref.div),
    _row("exact_div", 2, _always("int"), ref.exact_div, domain="int"),  # `/` between sizes: exact, or an error
    _row("floor_div", 2, _arithmetic, ref.floor_div, domain="real"),
    _row("mod", 2, _arithmetic, ref.mod, domain="real"),
    _row("pow", 2, _arithmetic, ref.power),
    _row("neg", 1, _arithmetic, ref.neg, "involution"),
    _row("maximum", 2, _arithmetic, ref.maximum, "associative commutative idempotent", domain="real"),
    _row("minimum", 2, _arithmetic, ref.minimum, "associative commutative idempotent", domain="real"),
    # comparison and logic
    _row("lt", 2, _always("bool"), ref.lt, domain="real"),
    _row("le", 2, _always("bool"), ref.le, domain="real"),
    _row("eq", 2, _always("bool"), ref.eq, "commutative"),
    _row("ne", 2, _always("bool"), ref.ne, "commutative"),
    _row("and", 2, _always("bool"), ref.logical_and, "associative commutative idempotent", domain="bool"),
    _row("or", 2, _always("bool"), ref.logical_or, "associative commutative idempotent", domain="bool"),
    _row("not", 1, _always("bool"), ref.logical_not, "involution", domain="bool"),
    _row("where", 3, _choice, ref.where),
    # functions of reals (complex where the domain says so)
    _row("exp", 1, _real_at_least, ref.exp),
    _row("log", 1, _real_at_least, ref.log),
    _row("log2", 1, _real_at_least, ref.log2),
    _row("sqrt", 1, _real_at_least, ref.sqrt),
    _row("abs", 1, _parts, ref.absolute, "idempotent_map"),
    _row("sign", 1, _same, ref.sign, "idempotent_map", domain="real", grad="zero"),
    _row("sin", 1, _real_at_least, ref.sin),
    _row("cos", 1, _real_at_least, ref.cos),
    _row("tanh", 1, _real_at_least, ref.tanh, domain="real"),
    _row("sigmoid", 1, _real_at_least, ref.sigmoid, domain="real"),
    _row("log_sigmoid", 1, _real_at_least, ref.log_sigmoid, domain="real"),
    _row("softplus", 1, _real_at_least, ref.softplus, domain="real"),
    _row("inv_softplus", 1, _real_at_least, ref.inv_softplus, domain="real"),
    _row("silu", 1, _real_at_least, ref.silu, domain="real"),
    _row("gelu", 1, _real_at_least, ref.gelu, domain="real"),
    _row("relu", 1, _arithmetic, ref.relu, "idempotent_map", domain="real"),
    _row("leaky_relu", 1, _real_at_least, ref.leaky_relu, domain="real", slope=0.2),
    _row("elu", 1, _real_at_least, ref.elu, domain="real"),
    _row("erf", 1, _real_at_least, ref.erf, domain="real"),
    _row("expm1", 1, _real_at_least, ref.expm1),
    _row("log1p", 1, _real_at_least, ref.log1p),
    _row("logaddexp", 2, _real_at_least, ref.logaddexp, "associative commutative", domain="real"),
    _row("clamp", 3, _arithmetic, ref.clamp, domain="real"),
    _row("floor", 1, _always("int"), ref.floor, domain="real"),
    _row("ceil", 1, _always("int"), ref.ceil, domain="real"),
    _row("round", 1, _arithmetic, ref.round_half_even, "idempotent_map", domain="real", grad="zero"),
    _row("step", 1, _real_at_least, ref.step, domain="real", grad="zero"),
    _row("stop", 1, _same, ref.stop, "idempotent_map"),
    # functions of integers
    _row("xor", 2, _always("int"), ref.xor, "associative commutative", domain="int"),
    _row("bit_and", 2, _always("int"), ref.bit_and, "associative commutative idempotent", domain="int"),
    _row("bit_length", 1, _always("int"), ref.bit_length, domain="int"),
    _row("popcount", 1, _always("int"), ref.popcount, domain="int"),
    # complex numbers
    _row("re", 1, _parts, ref.real),
    _row("im", 1, _parts, ref.imag),
    _row("conj", 1, _same, ref.conj, "involution"),
    # random initialisers: only in `param`, drawn at build
    _row("normal", 2, _always("real"), None),
    _row("uniform", 2, _always("real"), None),
    _row("orthogonal", 0, _always("real"), None),
    # reductions
    _row("sum", 2, lambda body, guard: _arithmetic(body), ref.reduce_sum, "linear", "reduce"),
    _row("mean", 2, lambda body, guard: _real_at_least(body), ref.reduce_mean, "linear", "reduce"),
    _row("prod", 2, lambda body, guard: _arithmetic(body), ref.reduce_prod, "", "reduce"),
    _row("max", 2, lambda body, guard: _arithmetic(body), ref.reduce_max, "", "reduce", "real"),
    _row("min", 2, lambda body, guard: _arithmetic(body), ref.reduce_min, "", "reduce", "real"),
    _row("logsumexp", 2, lambda body, guard: _real_at_least(body), ref.reduce_logsumexp, "", "reduce", "real"),
    _row("any", 2, _always("bool"), ref.reduce_any, "", "reduce", "bool"),
    _row("all", 2, _always("bool"), ref.reduce_all, "", "reduce", "bool"),
    _row("argmax", 2, _always("int"), ref.reduce_argmax, "", "reduce", "real"),
    _row("normaliser", 2, lambda z, guard: _real_at_least(z), ref.reduce_logsumexp, "", "reduce", "real"),
    _row("normalised_read", 3, lambda z, v, guard: _real_at_least(z, v), ref.normalised_read, "", "reduce", "real"),
    # along axes, which stay
    _row("softmax", 2, lambda body, guard: _real_at_least(body), ref.softmax, "", "along", "real"),
    _row("rank", 2, _always("int"), ref.rank, "", "along", "real"),
    _row("rms_norm", 2, lambda body, guard: _real_at_least(body), ref.rms_norm, "", "along", "real", eps=1e-6),
    _row("layer_norm", 2, lambda body, guard: _real_at_least(body), ref.layer_norm, "", "along", "real", eps=1e-6),
    _row("l2_norm", 2, lambda body, guard: _real_at_least(body), ref.l2_norm, "", "along", "real", eps=1e-12),
    _row("cumsum", 2, lambda body, guard: _arithmetic(body), ref.cumsum, "linear", "along"),
    # maps from consumed to made axes
    _row("fft", 1, _always("complex"), ref.fft, "linear", "map"),
    _row("ifft", 1, _always("complex"), ref.ifft, "linear", "map"),
    _row("rfft", 1, _always("complex"), ref.rfft, "linear", "map", "real"),
    _row("irfft", 1, _always("real"), ref.irfft, "linear", "map"),
    _row("hadamard", 1, _real_at_least, ref.hadamard, "linear", "map"),
    _row("dct", 1, _real_at_least, ref.dct, "linear", "map", "real"),
    _row("solve", 2, _real_at_least, ref.solve, "", "map"),
    _row("qr", 1, _real_at_least, ref.qr, "", "map"),
    # made by forms
    _row("matrix_taps", 3, _real_at_least, ref.matrix_taps, "", "map"),
    _row("newton", None, lambda *d: d[0], ref.newton, domain="real"),
    _row("front", 1, _same, ref.front, along="", across="", slope=1, lead=0, before=0, after=0, up=False, left=False),
    _row("level", 1, _same, ref.front),
    _row("over_ranks", 1, _same, ref.front),
    _row("affine_scan", 3, _arithmetic, ref.affine_scan, "", "scan", log=False, reverse=False),
    _row("ring_scan", 3, _same, ref.ring_scan, "", "scan", ring="max_plus", reverse=False),
    _row("matrix_scan", 3, _arithmetic, ref.matrix_scan, "", "scan", reverse=False),
    _row("grid_scan", 5, _arithmetic, ref.grid_scan, "", "scan", up=False, back=False),
    _row("decayed_read", 5, _arithmetic, ref.decayed_read, "", "scan", log=False, strict=False, chunk=64),
    _row("decayed_product", 8, _arithmetic, ref.decayed_product, "", "scan", log=False, log_other=False),
    _row("decayed_solve", 5, _arithmetic, ref.decayed_solve, "", "scan", log=False, after=False, chunk=64),
    _row("micro_solve", 5, _arithmetic, ref.micro_solve, "", "scan", log=False, after=False, chunk=64, width=1),
    _row("decayed_state", 4, _arithmetic, ref.decayed_state, "", "last", log=False),
    _row("block_read", 5, _arithmetic, ref.block_read, "", "scan", log=False, strict=False, chunk=64),
    _row("block_solve", 5, _arithmetic, ref.block_solve, "", "scan", log=False, chunk=64),
    _row("across_ranks", 3, _same, ref.across_ranks, "", "scan", acts="times", reverse=False),
    _row("block_state", 4, _arithmetic, ref.block_state, "", "last", log=False),
    # a declared monoid's fold: args are the lift's arguments and, last, the guard
    _row("fold", None, lambda *d: _join("real", *d[:-1]), None, "", "fold"),
]

OPS: dict[str, Op] = {row.name: row for row in _ROWS}

# What each operand of a scan may vary along, besides the heads and columns that all may: t the time, s a second one, j the
# ranks, p the parts of a block, m the parts that its decay reads, r the rows.
SCAN_OPERANDS = {
    "affine_scan": ("t", "t", ""),
    "ring_scan": ("t", "t", ""),
    "matrix_scan": ("tjr", "tj", "j"),
    "grid_scan": ("tsjr", "tsjr", "tsj", "sj", "tj"),
    "across_ranks": ("jr", "j", "j"),
    "decayed_read": ("tr", "tr", "t", "tr", "r"),
    "decayed_product": ("t", "tr", "t", "r", "t", "tr", "t", "r"),
    "decayed_solve": ("tjr", "tjr", "tj", "tr", "r"),
    "micro_solve": ("tjr", "tjr", "tj", "tjr", "r"),
    "decayed_state": ("t", "t", "t", ""),
    "block_read": ("tpr", "tpr", "t", "tpmr", "pr"),
    "block_solve": ("tjpr", "tjpr", "tj", "tpmr", "pr"),
    "block_state": ("tp", "t", "tpm", "p"),
}


def make(op: str, *args: Node, attr: Hashable = (), dtype: str | None = None) -> Node:
    """The interned node; the dtype is inferred unless given (leaves: const, read, and folds give it)."""
    row = OPS[op]
    assert row.arity is None or row.arity == len(args), f"{op} takes {row.arity} operands, not {len(args)}"
    kind = row.dtype(*[a.dtype for a in args]) if dtype is None else dtype
    return interned(op, args, attr, kind) or Node(op, args, attr, kind, _free(op, args, attr))


def remake(node: Node, args: tuple[Node, ...]) -> Node:
    """The same operator on other operands; the dtype is inferred again where operands decide it."""
    keeps = not node.args or node.op in ("read", "fold")
    return make(node.op, *args, attr=node.attr, dtype=node.dtype if keeps else None)


def bound(node: Node) -> tuple[str, ...]:
    """The indices that a node binds (a reduction's, a fold's) or works along (those stay free)."""
    return _part(node, _BOUND)


def made(node: Node) -> tuple[str, ...]:
    """The indices that appear by the node: an along operator's own, a map's made ones."""
    return _part(node, _MADE)


def operand_axes(node: Node) -> tuple[tuple[str, ...], ...]:
    """The axes that each operand of a map is consumed along, in the order in which its reference wants them last."""
    consumed, produced = bound(node), made(node)
    if node.op == "solve":
        return (*consumed, *produced), consumed
    if node.op == "matrix_taps":
        half = len(consumed) // 2
        return consumed[:half], consumed, consumed[half:]
    return (produced if node.op == "qr" else consumed,) * len(node.args)


# Which parts of an operator's `attr` list the indices, by its binding.
_BOUND = {"reduce": (0,), "along": (0,), "map": (0,), "last": (0,), "scan": (0, 1), "fold": (1,)}
_MADE = {"along": (0,), "scan": (0,), "map": (1,)}


def _part(node: Node, parts: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    binding = OPS[node.op].binding
    return tuple([name for position in parts.get(binding, ()) for name in node.attr[position]]) if binding else ()


def options(node: Node) -> dict[str, Any]:
    """The options of an operator, defaults filled in."""
    row = OPS[node.op]
    if not row.options:
        return {}
    position = {"reduce": 1, "along": 1, "map": 2, "scan": 2, "last": 2}.get(row.binding)
    given: Any = node.attr if position is None else node.attr[position]
    return {**dict(row.options), **dict(given)}


def _free(op: str, args: tuple[Node, ...], attr: Any) -> frozenset[str]:
    if op == "index":
        return frozenset((attr,))
    below = args[0].free if len(args) == 1 else frozenset().union(*[a.free for a in args])
    binding = OPS[op].binding
    if not binding:
        return below
    consumed, appear = attr[0], ()
    if binding == "along":
        appear = attr[0]
    elif binding == "map":
        appear = attr[1]
    elif binding == "scan":
        consumed, appear = attr[0] + attr[1], attr[0]
    elif binding == "fold":
        consumed = attr[1]
        appear = attr[2]
    return (below - frozenset(consumed)) | frozenset(appear)
