"""The functions of the language by name (rule 32), and which operator of `ir.ops` each one is.

Adding a function is a row here and a row of `ir.ops`.
"""

from __future__ import annotations

ELEMENTWISE = {  # name -> operator
    name: name
    for name in (
        "exp log log2 sqrt abs sign sin cos tanh sigmoid log_sigmoid softplus inv_softplus silu gelu relu leaky_relu elu "
        "erf expm1 log1p logaddexp clamp floor ceil round step xor bit_and bit_length popcount re im conj where stop"
    ).split()
}
VARIADIC = {"max": "maximum", "min": "minimum"}  # of two operands or more, without brackets
REDUCTIONS = frozenset("max min prod logsumexp argmax any all".split())
ALONG = frozenset("softmax rank rms_norm layer_norm l2_norm cumsum".split())
TRANSFORMS = frozenset("fft ifft rfft irfft hadamard dct solve qr".split())
RANDOM = {"normal": 2, "uniform": 2, "orthogonal": 0}
CONSTANTS = ("inf", "pi", "true", "false")
SPECIAL = ("linear", "sum", "mean", "grad")
FUNCTIONS = frozenset([*ELEMENTWISE, *VARIADIC, *REDUCTIONS, *ALONG, *TRANSFORMS, *RANDOM, *CONSTANTS, *SPECIAL])
RESERVED_SETTINGS = frozenset(("per",))
ABSENCE_MATTERS = frozenset("max min softmax logsumexp prod argmax rank".split())  # rule 10
GRADIENTS = frozenset(("identity", "clamp", "atan", "zero"))  # `round(x; grad = ..)`, rule 33
