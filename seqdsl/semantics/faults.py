"""The codes of the faults of meaning, with an explanation and a smallest text that shows each: the table behind
`seqc explain`.

Architecture invariant: data only. Every code that `seqdsl.semantics` or `seqdsl.ir` raises is a row here or of
`seqdsl.syntax.faults`, and of one of them only. A test asserts that each example has exactly its fault. Codes without
an example are about the sizes, inputs and parameters of a run (`SizeError`), or about several files.
"""

from __future__ import annotations

from seqdsl.semantics.unroll import MOST_EQUATIONS, MOST_ITERATIONS
from seqdsl.syntax.faults import Fault


def _body(*lines: str) -> str:
    """A mixer that consists of these lines."""
    return "mixer f(x[t,c]) -> y[t,c]:\n" + "".join(f"    {line}\n" for line in lines)


def _monoid(*lines: str) -> str:
    """A mixer that folds by a monoid of these lines."""
    block = "".join(f"    {line}\n" for line in lines)
    return f"monoid m(a):\n{block}\nmixer f(x[t,c]) -> y[c]:\n    y[c] = m[t](x)\n"


def _calling(callee: str, *lines: str) -> str:
    """A mixer of these lines, and what it calls below."""
    return _body(*lines) + "\n" + callee


_HALF = "mixer g(a[t,c]) -> b[t,c]:\n    b[t,c] = a / 2\n"

SEMANTICS: dict[str, Fault] = {
    # Names (rules 1, 7 and 37)
    "name-clash": Fault(
        "Within a mixer a name is an index, a tensor or a size, never two, and none is a function of the language "
        "(rule 1): a clash would compare a tensor with a position in silence.",
        _body("t[c] = 1", "y[t,c] = x"),
    ),
    "duplicate-definition": Fault(
        "Each point of a tensor is defined once, in whatever order the equations stand; a second value needs a second "
        "name. A base case has a constant subscript, `S[-1,h] = ..`, and no two give the same points (rules 7 and 19).",
        _body("y[t,c] = x", "y[t,c] = 2 * x"),
    ),
    "duplicate-index": Fault(
        "An index has one size, and is known in the whole mixer; the same size may be said again (rule 7).",
        _body("a[n: 2] = n", "b[n: 3] = n", "y[t,c] = x"),
    ),
    "duplicate-name": Fault(
        "The variable of a static `for` is a name of its own; it shadows neither another loop's nor an option.",
        _body("for i in 0..2:", "    for i in 0..2:", "        a{i}[t,c] = x", "y[t,c] = x"),
    ),
    "unknown-name": Fault(
        "A name in an expression is an index, a tensor or a size of this mixer, or a mixer, fn or monoid that the file "
        "declares or imports. A name not imported does not exist (rule 37).",
        _body("y[t,c] = x * gate"),
    ),
    "unknown-index": Fault(
        "An index is declared by the header, by its first size (`h: H` on a left side, in `param`, in `sum[j: W]`), or "
        "by `index s over t` (rules 5 and 7).",
        _body("a[t,h] = 1", "y[t,c] = x"),
    ),
    "unknown-tensor": Fault(
        "What is read with subscripts is an input, a param, a const, or the left side of an equation of this mixer.",
        _body("y[t,c] = S[t-1]"),
    ),
    "unknown-size": Fault(
        "A size is made of options (the names after `;` in the header), of `|x|` for an index x, and of numbers "
        "(rule 8).",
        _body("a[n: N] = n", "y[t,c] = x"),
    ),
    "unknown-field": Fault(
        "Inside `combine(a, b)` the fields of the two elements are read as `a.m` and `b.m` (rule 34).",
        _monoid("combine(p, q):", "    a = p.a + q.b"),
    ),
    "unknown-function": Fault(
        "A function is one of the language's (rule 32), or a mixer, fn or monoid that this file declares or imports "
        "(rule 37).",
        _body("y[t,c] = swish(x)"),
    ),
    "unknown-indices": Fault(
        "A left side without brackets takes its indices from the call on its right (rule 25). Where that call reads "
        "the result itself, directly or through others, they must be written.",
        _calling(_HALF, "y = g(y)"),
    ),
    "undefined-output": Fault("Every output of the header is an input, or has an equation.", _body("z[t,c] = x")),
    "output-mismatch": Fault(
        "An output has the same indices in the header and in its equation; the header says their layout (rule 7).",
        _body("y[t] = sum[c] x"),
    ),
    "unknown-mixer": Fault(
        "The file declares no mixer of that name, or none at all: monoids and fns are used by mixers.",
        "fn double(x) = 2 * x\n",
    ),
    "unknown-import": Fault(
        "An import names mixers, fns or monoids that a sibling file, else one of the library, declares itself "
        "(rule 37).",
        "import attend from nowhere\n\n" + _body("y[t,c] = x"),
    ),
    "import-cycle": Fault(
        "Files that import each other in a circle are refused (rule 37). Move what they share into a file that "
        "imports none of them.",
        "",
    ),
    # Indices (rules 2 to 6)
    "stray-index": Fault(
        "The right side contains only indices of the left side, and those bound by a reduction (rule 4). A bare tensor "
        "reads all its declared indices. The left side may have more: the value is then the same along those.",
        "mixer f(q[t,d]) -> o[t]:\n    o[t] = 2 * q\n",
    ),
    "repeated-index": Fault(
        "An index stands once on a left side, in an input and in the brackets of an operation. A second index of the "
        "same axis has a name of its own: `index s over t` (rule 5).",
        _body("a[t,t] = 1", "y[t,c] = x"),
    ),
    "ambiguous-axis": Fault(
        "In a sum over `s`, where `s` and `t` run over one axis, a bare factor that carries `t` and not `s` is not "
        "what is meant, most often: `sum[s] p * v` would be exactly `v`. Write `v[s]`, or `v[t]` if it is (rule 5).",
        "mixer f(p[t,s], v[t]) -> o[t]:\n    index s over t\n    o[t] = sum[s] p * v\n",
    ),
    "unused-reduction-index": Fault(
        "The index of a reduction occurs in its body or its guard; a sum of something that does not vary is written "
        "as the product that it is, `|d| * v` (rule 4).",
        "mixer f(v[t], k[d]) -> o[t]:\n    o[t] = sum[d] v\n",
    ),
    "not-a-tensor": Fault(
        "Subscripts belong to tensors. An index is a position, an option a number; neither is read at a place.",
        _body("y[t,c] = c[t] * x"),
    ),
    "too-many-subscripts": Fault(
        "A read has at most as many subscripts as the tensor has indices; the omitted rest stands for the declared "
        "indices (rule 2).",
        _body("y[t,c] = x[t,c,0]"),
    ),
    "subscript-not-integer": Fault(
        "A subscript is an integer: an index, a size, an int input, or what floor, ceil, argmax or rank gives; `/` "
        "makes a real, `//` does not (rules 31 and 32).",
        _body("y[t,c] = x[t / 2]"),
    ),
    # Sizes (rule 8)
    "not-a-size": Fault(
        "A size is made of integers, options, `|x|`, the operators + - * / // % ^, and ceil, min, max (rule 8).",
        _body("a[n: x] = n", "y[t,c] = x"),
    ),
    "bad-size": Fault(
        "A size comes out as an integer of at least 1; an axis whose length depends on a call's inputs may be empty. "
        "The note shows the formula with its numbers.",
        _body("a[t, n: 2 - 2] = x[t,n]", "y[t,c] = x"),
    ),
    "inexact-division": Fault(
        "`/` between sizes must be exact, in nested calls too. Write `//` to drop the rest, `ceil(a / b)` to round up, "
        "or choose sizes that divide (rules 8 and 9).",
        _body("a[t, n: 7 / 2] = x[t,n]", "y[t,c] = x"),
    ),
    "division-by-zero": Fault(
        "A constant divisor is zero, or a size's divisor comes out as zero.", _body("y[t,c] = x / 0")
    ),
    "size-too-large": Fault(
        "A size is at most 2^40, and a tensor has at most 2^31 entries along at most 31 indices.",
        _body("a[n: 1000000000000000000000000000000] = n", "y[t,c] = x"),
    ),
    "size-mismatch": Fault(
        "Two lengths that must be equal are not: of one axis in two inputs, of an axis and the size that the text "
        "states for it, of axes that meet in a subscript (rule 6), or of a parameter that was given.",
        "",
    ),
    "missing-size": Fault(
        "The length of every axis follows from an input, an option or a size in the text; here it does not.", ""
    ),
    "missing-option": Fault(
        "An option without a default must be given where its mixer is called: `f(x; N = 4)`.",
        _calling("mixer g(a[t]; N) -> b[t]:\n    b[t] = N * a\n", "y = g(x)"),
    ),
    "missing-input": Fault(
        "Every input of the header is given in a call; of the parameters of one `per` call all or none.", ""
    ),
    "unknown-parameter": Fault(
        "A parameter was given under a name that the mixer does not have. Names are those of the state_dict: "
        "`q.weight`, and `x.0.q.weight` under `per`.",
        "",
    ),
    "number-too-large": Fault("A number must have a float64. Infinity is written `inf`.", _body("y[t,c] = 1e999 * x")),
    # Operations and functions (rules 10 to 17, 29 to 33)
    "wrong-number-of-arguments": Fault(
        "A call has as many arguments as the function or mixer takes.", _body("y[t,c] = exp(x, 2)")
    ),
    "missing-indices": Fault(
        "An operation along an axis says along which: `softmax[s](x)` (rule 13).", _body("y[t,c] = softmax(x)")
    ),
    "unexpected-brackets": Fault(
        "A function that works entry by entry takes no indices; neither does the call of a mixer or fn, whose axes are "
        "matched by name (rules 13 and 23).",
        _body("y[t,c] = exp[c](x)"),
    ),
    "unexpected-arrow": Fault(
        "Only transforms and `linear` make axes, `rfft[j -> f](x)` (rule 16).", _body("y[t,c] = softmax[c -> t](x)")
    ),
    "too-many-indices": Fault(
        "A transform takes one axis to one axis; over two axes it is one transform inside another (rule 16).",
        _body("y[t,c] = re(fft[t,c](x))"),
    ),
    "made-and-mapped": Fault(
        "The axis that an arrow makes is new: an operand that varies along it already would be mapped over it (rule 16).",
        "mixer f(x[t], w[s]) -> y[s]:\n    y[s] = re(ifft[t -> s](x * w))\n",
    ),
    "matrix-without-arrow": Fault(
        "A matrix has two indices, and the arrow of `solve` and `qr` says which: `solve[d -> f](A, b)` of A[d,f] and b[d] "
        "is the x[f] whose product with A is b (rule 16).",
        "mixer f(A[t,d,f], b[t,d]) -> y[t,f]:\n    y[t,f] = solve[d](A, b)\n",
    ),
    "unexpected-guard": Fault(
        "Transforms and `linear` work on whole axes; mask the operand with `where` instead.",
        _body("y[t,c] = fft[c | c > 0](x)"),
    ),
    "unknown-option": Fault(
        "A setting after `;` is an option of what is called, or an index of its header (rules 23 and 30).",
        _body("y[t,c] = rms_norm[c](x; epsilon = 1e-6)"),
    ),
    "duplicate-setting": Fault(
        "A setting after `;` is given once in a call.", _body("y[t,c] = rms_norm[c](x; eps = 1e-6, eps = 1e-5)")
    ),
    "option-not-constant": Fault(
        "The option of a function of the language is a number, the same at every point.",
        _body("y[t,c] = rms_norm[c](x; eps = x)"),
    ),
    "not-a-condition": Fault(
        "A guard, and the first argument of `where`, is a comparison or a bool (rule 11).",
        _body("y[t,c] = where(x, x, 0)"),
    ),
    "int-real-equality": Fault(
        "An int and a real are not compared for equality: rounding would decide (rule 32).",
        _body("y[t,c] = where(x == c, x, 0)"),
    ),
    "complex-order": Fault(
        "Complex numbers have no order (rule 32).", "mixer f(x[t]: complex) -> y[t]:\n    y[t] = where(x > 0, 1, 0)\n"
    ),
    "wrong-type": Fault(
        "Bit functions take ints, `not`, `and` and `or` bools, transforms of reals reals (rule 32).",
        _body("y[t,c] = xor(x, 1)"),
    ),
    "empty-argmax": Fault(
        "An argmax over no point has no value. An affine conjunct of its guard (`s <= t`) must show that a point is "
        "left; a condition on data does not (rule 12).",
        "mixer f(x[t], a[s]) -> y[t]:\n    y[t] = argmax[s | a > 0](a) + x\n",
    ),
    "unguarded-read": Fault(
        "Outside its axis a tensor reads 0, which is not neutral for max, min, softmax, logsumexp, prod, argmax and "
        "rank. Guard the read, `max[j: 3 | j <= t](x[t-j])`, or read through a named tensor (rule 10).",
        _body("y[t,c] = max[j: 3](x[t-j])"),
    ),
    "random-outside-parameter": Fault(
        "`normal`, `uniform` and `orthogonal` draw when the module is built, and stand only in `param`. A random draw "
        "at run time is an input (rules 29 and 33).",
        _body("y[t,c] = x + normal(0, 1)"),
    ),
    "bad-draw": Fault(
        "`normal(m, s)` takes a mean and a standard deviation, which is not negative; `uniform(a, b)` a lower and an "
        "upper end (rule 29).",
        _body("param w[c] = normal(0, -1)", "y[t,c] = w * x"),
    ),
    "input-in-parameter": Fault(
        "A param or const is evaluated when the module is built: from indices, sizes and other parameters (rule 29).",
        _body("param w[t,c] = x", "y[t,c] = w * x"),
    ),
    "bad-constant": Fault(
        "A tuple lists the values of a `const` along its one index, as many as the axis is long (rule 29).",
        _body("const w[j: 2] = (1, 2, 3)", "y[t,c] = sum[j] w * x[t-j]"),
    ),
    "bad-linear": Fault(
        "A linear names what it contracts and has one argument: `linear[c](x)` (rule 30).", _body("y[t,c] = linear(x)")
    ),
    "ambiguous-linear": Fault(
        "A linear makes the left side's indices that its argument lacks. Where it contracts an index that the left "
        "side has as well, an arrow says which axes it makes: `linear[c -> c](x)` (rule 30).",
        _body("y[t,c] = linear[c](x)"),
    ),
    # Recurrences (rules 18 and 19)
    "not-well-founded": Fault(
        "A tensor may read itself, or a group each other, if one order of the axes, each up or down, makes every such "
        "read strictly earlier. That is shown by subscripts (`t-1`) or by an affine conjunct of a guard (`| s < t`); "
        "the notes list the reads of the circle with their distances (rule 18).",
        _body("y[t,c] = x + y"),
    ),
    "base-case-alone": Fault(
        "A base case belongs to a recurrence: an equation that gives the tensor at every index (rule 19).",
        _body("S[-1,c] = 0", "y[t,c] = x"),
    ),
    "base-case-shape": Fault(
        "A base case has the indices of its tensor in the same order, with constants at one or more of them (rule 19).",
        _body("y[-1] = 0", "y[t,c] = y[t-1] + x"),
    ),
    # Calls (rules 23 to 28)
    "recursive-call": Fault(
        "A call is substitution, so a mixer that calls itself, directly or through others, has no end. A recurrence "
        "over an index says what is meant: a stack is a recurrence over depth (rules 26 and 28).",
        _body("y = f(x)"),
    ),
    "unbound-axis": Fault(
        "Axes are matched by name, or by axis where `index s over t` is said. An axis of the callee that no argument "
        "has so far is stated after `;`: `f(a; t = j)` (rule 23).",
        "mixer f(x[i,c]) -> y[i,c]:\n    y[i,c] = g(x)\n\n" + _HALF,
    ),
    "axis-mismatch": Fault(
        "Where the callee says `index s over t`, both are indices of one axis of the caller too: positions of two axes "
        "are not comparable (rules 5 and 23).",
        "mixer f(x[i], z[j]) -> y[i]:\n    y = g(x, z; t = i, s = j)\n\n"
        "mixer g(a[t], b[s]) -> o[t]:\n    index s over t\n    o[t] = sum[s | s <= t] a * b\n",
    ),
    "bound-and-mapped": Fault(
        "An axis that one argument binds is not mapped over in another: the callee would see one position of the first "
        "beside all positions of the second (rule 24).",
        "mixer f(x[t], z[t]) -> y[t]:\n    y[t] = g(x, z)\n\nmixer g(a[t], b) -> o[t]:\n    o[t] = a + b\n",
    ),
    "too-many-targets": Fault(
        "As many left sides as the call has outputs, or fewer: those take the first ones (rule 25).",
        _calling(_HALF, "y, z = g(x)"),
    ),
    "bad-gradient": Fault(
        "`grad[W](loss(W[t-1], k, v))` names a formal parameter of the fn or mixer that is called in it (rule 27).",
        _body("y[t,c] = grad[x](x)"),
    ),
    "gradient-of-tensor": Fault(
        "A gradient is that of a scalar: the call has no indices of its own beyond the mapped ones (rule 27).",
        _calling("fn g(a[c]) = 2 * a\n", "y[t,c] = grad[a](g(x))"),
    ),
    "gradient-of-recurrence": Fault(
        "`grad` differentiates equations, not a recurrence inside the function that it is applied to (rule 27).",
        _calling("fn g(a[c]) -> l:\n    s[c] = s[c-1] + a\n    l = s[|c|-1]\n", "y[t,c] = grad[a](g(x))"),
    ),
    # Static loops (rule 28)
    "dynamic-loop-bound": Fault(
        "A static `for` is unrolled when the file is compiled: its bounds, and the numbers in names, are made of "
        "numbers, loop variables and options with numeric values (rule 28).",
        _body("for i in 0..|t|:", "    z{i}[t,c] = x", "y[t,c] = x"),
    ),
    "too-many-iterations": Fault(
        f"Static loops are unrolled, {MOST_ITERATIONS} iterations in all; a recurrence over an index of its own is not "
        "(rule 28).",
        _body("for i in 0..1000000:", "    z{i}[t,c] = x", "y[t,c] = x"),
    ),
    "too-many-equations": Fault(
        f"A mixer may have {MOST_EQUATIONS} equations when its loops are unrolled and its calls substituted; a fn that calls "
        "another twice, which calls another twice, soon has more. Write things once, over an axis.",
        _body("for i in 0..900:", *(f"    {name}{{i}}[t,c] = x" for name in "abdefghijklmnopqrsuvwyz"), "y[t,c] = x"),
    ),
    "bad-number-in-name": Fault(
        "The number in a name `x{l-1}` is not negative.", _body("for i in 0..2:", "    z{i-1}[t,c] = x", "y[t,c] = x")
    ),
    # Monoids (rule 34)
    "missing-field": Fault(
        "`combine` gives every field of the element, `project` its output (rule 34).",
        "monoid m(a, b):\n    combine(p, q):\n        a = p.a + q.a\n    project -> y:\n        y = a / b\n\n"
        "mixer f(x[t,c]) -> y[c]:\n    y[c] = m[t](x, x)\n",
    ),
    "missing-project": Fault(
        "With several fields a monoid says what a fold gives: `project -> y: ..`; a single field needs none (rule 34).",
        "monoid m(a, b):\n    combine(p, q):\n        a = p.a + q.a\n        b = p.b + q.b\n\n"
        "mixer f(x[t,c]) -> y[c]:\n    y[c] = m[t](x, x)\n",
    ),
    "wrong-number-of-fields": Fault(
        "`identity` and `lift` list one value for each field (rule 34).",
        _monoid("identity = (0, 0)", "combine(p, q):", "    a = p.a + q.a"),
    ),
    "unexpected-statement": Fault(
        "`combine` and `project` hold equations only; params stand in the monoid, beside them (rule 34). A `fn` has "
        "neither params, `linear` among them, nor claims: what has is a mixer (rule 26).",
        _monoid("combine(p, q):", "    param w", "    a = p.a + w * q.a"),
    ),
    "fold-in-monoid": Fault(
        "The equations of a monoid use the reductions of the language and functions, not declared monoids, nor `linear`: "
        "its parameters are its `param`s (rule 34).",
        _monoid("combine(p, q):", "    a = p.a + m[t](q.a)"),
    ),
    "empty-fold": Fault(
        "A fold over no point is the monoid's `identity`; without one, the guard must show that it is not empty (rule 34).",
        "monoid m(a):\n    combine(p, q):\n        a = p.a + q.a\n\n"
        + _body("index s over t", "y[t,c] = m[s | s < t](x[s])"),
    ),
    "bad-ir-text": Fault("The text of a system, as `seqc ir` prints it, was changed into something that is none.", ""),
    # Claims (rule 35)
    "unknown-claim": Fault(
        "Claims are `causal`, `stable`, `linear`, `permutation`, `shift`, `rows_sum_to_one`, `doubly_stochastic`, "
        "`cost(o) <= ..` and equalities; `associative` and `commutative` inside a monoid (rule 35).",
        _body("y[t,c] = x", "claim fast"),
    ),
    "claim-argument": Fault(
        "A claim is about tensors and indices of its mixer, by name (rule 35).", _body("y[t,c] = x", "claim stable(t)")
    ),
}
