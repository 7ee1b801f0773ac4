"""The table of broken derivations: what is done wrong, to what, and the mixer that shows it."""

from __future__ import annotations

from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import make
from tests.mutants.tools import Mutant, argument, argument_of, at, before, nodes, option, swapped, tensor, text, zero


def before_it(node: Node) -> Node:
    """One less."""
    return build.sub(node, build.ONE)


def after_it(node: Node) -> Node:
    """One more."""
    return build.add(node, build.ONE)


HALF = build.const(build.Fraction(1, 2))
LAST = build.sub(build.size("j"), build.ONE)
PARTS_TRANSPOSED = {"r.part": build.index("r.part'"), "r.part'": build.index("r.part")}
TRANSPOSED = {"M.block": build.index("M.block'"), "M.block'": build.index("M.block")}

IN_FORMS = [
    Mutant("drop the decay of a read", "gated", "chunkwise", argument("decayed_read", 3, zero)),
    Mutant("drop the decay of the last state", "gated", "chunkwise", argument("decayed_state", 2, zero)),
    Mutant("drop the starting state of a read", "gated", "chunkwise", argument("decayed_read", 4, zero)),
    Mutant("drop the starting state of the last state", "gated", "chunkwise", argument("decayed_state", 3, zero)),
    Mutant(
        "mask shifted: a read sees no write of its own step",
        "gated",
        "quadratic",
        option("decayed_read", "strict", True),
    ),
    Mutant(
        "drop `strict`: a read before the update sees it",
        "read_before",
        "chunkwise",
        option("decayed_read", "strict", False),
    ),
    Mutant("the decay of the step before", "gated", "chunkwise", argument("decayed_read", 3, at("t", before("t")))),
    Mutant("query and key exchanged", "gated", "chunkwise", swapped("decayed_read", 0, 1)),
    Mutant(
        "missing square root", "gated", "chunkwise", tensor("o", lambda n: build.mul(n, make("sqrt", build.size("d"))))
    ),
    Mutant("a piece that lets through all that enters it", "gated", "distributed", argument("across_ranks", 0, zero)),
    Mutant("a first piece that nothing enters", "gated", "distributed", argument("across_ranks", 2, zero)),
    Mutant("a decay taken for its logarithm", "raw", "scan", option("affine_scan", "log", True)),
    Mutant("log decay taken for the decay", "started", "scan", option("affine_scan", "log", False)),
    Mutant("the scan's decay one step late", "started", "scan", argument("affine_scan", 0, at("t", before("t")))),
    Mutant("wrong start state", "started", "scan", argument("affine_scan", 2, zero)),
    Mutant("a reverse scan that runs forward", "both_ways", "scan", option("affine_scan", "reverse", False)),
    Mutant(
        "a write that is forgotten",
        "two_writes",
        "chunkwise",
        argument("decayed_read", 1, lambda n: zero(n) if "p" in repr(n) else n),
    ),
    Mutant(
        "clamp at the boundary",
        "shifted",
        "scan",
        tensor(
            "z",
            lambda n: build.where(
                make("eq", build.index("t"), build.ZERO),
                build.read("x", [build.index("t"), build.index("c")], "real"),
                n,
            ),
        ),
    ),
    Mutant("a depth that skips the one below", "stack", "chunkwise", argument("decayed_read", 2, at("l", before("l")))),
    Mutant("a depth with the decays of the one below", "stack", "scan", argument("affine_scan", 0, at("l", before("l")))),
    Mutant("inner read without the decay", "delta_after", "chunkwise", option("decayed_solve", "after", False)),
    Mutant("inner read of the updated state", "delta", "chunkwise", option("decayed_solve", "after", True)),
    Mutant("inner read and write exchanged", "delta", "chunkwise", swapped("decayed_solve", 0, 1)),
    Mutant("feedback without decay", "delta", "chunkwise", argument("decayed_solve", 3, zero)),
    Mutant("feedback without the starting state", "delta", "chunkwise", argument("decayed_solve", 4, zero)),
    Mutant("feedback with the wrong sign", "delta", "chunkwise", argument("decayed_solve", 0, build.neg)),
    *(
        Mutant(f"{op}: {what}", "momentum", "chunkwise", change)
        for op, decay in (("block_solve", 3), ("block_read", 3), ("block_state", 2))
        for what, change in (
            ("transposed matrices", argument(op, decay, lambda n: build.substitute(n, TRANSPOSED))),
            ("no starting state", argument(op, decay + 1, zero)),
        )
    ),
    Mutant("inner read and write of the parts exchanged", "momentum", "chunkwise", swapped("block_solve", 0, 1)),
    Mutant("parts before their step", "momentum", "chunkwise", option("block_read", "strict", True)),
    Mutant("matrix scan without its start", "mixing", "scan", argument("matrix_scan", 2, zero)),
    Mutant(
        "transposed matrix scan",
        "mixing",
        "scan",
        argument("matrix_scan", 0, lambda n: build.substitute(n, {"n": build.index("n'"), "n'": build.index("n")})),
    ),
    Mutant("frequencies that turn the other way", "around", "scan", argument("affine_scan", 0, lambda n: make("conj", n))),
    Mutant("a spectrum that forgets the start", "around", "scan", argument("affine_scan", 2, zero)),
    Mutant(
        "a spectrum that is not transformed back",
        "around",
        "scan",
        nodes("ifft", lambda n: make("mul", n.args[0], build.const("i") if n.dtype != "complex" else build.ONE)),
    ),
    Mutant("taps that forget the starting state", "delayed", "convolution", tensor("S.start2", zero)),
    Mutant(
        "taps of the transposed matrix",
        "delayed",
        "convolution",
        argument("matrix_taps", 1, lambda n: build.substitute(n, {"n": build.index("n'"), "n'": build.index("n")})),
    ),
    Mutant(
        "taps that start one step late",
        "delayed",
        "convolution",
        nodes("read", lambda n: at("S.l", before("S.l"))(n) if n.attr == "S.kernel0" else n),
    ),
    Mutant(
        "kernel power off by one",
        "poles",
        "convolution",
        tensor("S.table3", at("S.j", build.add(build.index("S.j"), build.ONE))),
    ),
    Mutant(
        "lag 0 counted twice",
        "poles",
        "convolution",
        argument(
            "sum",
            0,
            lambda n: (
                build.mul(n, build.where(make("eq", build.index("S.l"), build.ZERO), build.const(2), build.ONE))
                if "S.l" in n.free
                else n
            ),
        ),
    ),
    Mutant("wrong identity of a ring", "tropical", "scan", argument("ring_scan", 2, zero)),
    Mutant("wrong ring", "smooth_peak", "scan", option("ring_scan", "ring", "max_plus")),
    Mutant(
        "a mask one position too far", "attention", "chunkwise", argument("normalised_read", 2, at("s", before("s")))
    ),
    Mutant(
        "a strict mask that is not strict",
        "strict_attention",
        "chunkwise",
        argument("normalised_read", 2, at("s", before("s"))),
    ),
    Mutant(
        "scores without their scale",
        "attention",
        "chunkwise",
        argument("normalised_read", 0, lambda n: build.mul(n, make("sqrt", build.size("d")))),
    ),
    Mutant(
        "micro-steps in reversed order",
        "micro",
        "recurrent",
        nodes(
            "read",
            lambda n: build.substitute(n, {"j": build.sub(LAST, build.index("j"))}) if n.attr in ("k", "v") else n,
        ),
    ),
    Mutant("a front that ends a cell early", "grid", "wavefront", tensor("y.front", argument_of("lt", 1, before_it))),
    Mutant("a grid that begins a cell late", "grid", "wavefront", tensor("y.front", argument_of("le", 1, before_it))),
    Mutant("the halo taken for the grid", "grid", "wavefront", tensor("y.front", argument_of("le", 1, after_it))),
    Mutant("a front read one too early", "grid", "wavefront", tensor("y.front", at("y.w", before("y.w")))),
    Mutant("a cell read off the wrong front", "grid", "wavefront", tensor("y", at("j", before("j")))),
    Mutant("a grid that forgets its first column", "grid", "wavefront", tensor("y.left", zero)),
    Mutant("a grid that forgets the state", "grid", "wavefront", tensor("y.top", zero)),
    Mutant("a corner that forgets the state", "grid", "wavefront", tensor("y.corner", zero)),
    Mutant("blocks with the matrices of the two axes exchanged", "blocks", "hierarchical", swapped("grid_scan", 0, 1)),
    Mutant("blocks that forget the state", "blocks", "hierarchical", argument("grid_scan", 3, zero)),
    Mutant("blocks that forget the first column", "blocks", "hierarchical", argument("grid_scan", 4, zero)),
    Mutant("blocks from the other end", "blocks", "hierarchical", option("grid_scan", "back", True)),
    Mutant(
        "blocks of transposed matrices",
        "two_ways",
        "hierarchical",
        argument("grid_scan", 0, lambda n: build.substitute(n, PARTS_TRANSPOSED)),
    ),
    Mutant(
        "a slow step that keeps half the state", "constant", "recurrent", tensor("S.kept", lambda n: build.mul(n, HALF))
    ),
]

IN_TEXTS = [
    Mutant(
        "every depth is left in the state of the first",
        "stack",
        "chunkwise",
        text=text(("[S_final[n] for n in range", "[S_final[0] for n in range")),
    ),
    Mutant(
        "gradients in the order of the fronts",
        "grid",
        "wavefront",
        text=text(("return _WavefrontOrder.apply(grad, back, order)", "return _WavefrontOrder.apply(grad, order, back)")),
    ),
    Mutant(
        "a corner taken from the row before",
        "grid",
        "wavefront",
        text=text(("part, place = 1, (row + lead)", "part, place = 0, (row + lead)")),
    ),
    Mutant(
        "forget the gradient of the starting state",
        "started",
        "scan",
        text=text(("d_start = _affine_scan_step(a, ctx.reverse).conj() * d_b", "d_start = 0 * d_b")),
    ),
    Mutant(
        "the adjoint's decay without its shift",
        "started",
        "scan",
        text=text(("*log_a.shape[2:])[:, late]", "*log_a.shape[2:])[:, early]")),
    ),
    Mutant(
        "an adjoint that enters a piece without the decay of its first row",
        "started",
        "scan",
        text=text(("    end.mul_(a_rows[rows[0]])\n", "")),
    ),
    Mutant(
        "a decay's gradient from the state after",
        "started",
        "scan",
        text=text(
            (
                "torch.mul(d_b[:, late], h[:, early].conj(), out=d_a[:, late])",
                "torch.mul(d_b[:, late], h[:, late].conj(), out=d_a[:, late])",
            )
        ),
    ),
    Mutant(
        "packed sequences without a reset",
        "started",
        "scan",
        text=text(
            ("own = None if state is None else _select_state(state, n)", "own = states[-1] if states else None"),
            ("if return_state else (run(*pieces, state=own), None)", ""),
        ),
    ),
    Mutant(
        "packed sequences cut one late",
        "gated",
        "chunkwise",
        text=text(
            (
                "ends = _sequence_ends(cu_seqlens, total)",
                "ends = [min(e + (0 < e), total) for e in _sequence_ends(cu_seqlens, total)]",
            )
        ),
    ),
    Mutant(
        "a step that does not move the state",
        "gated",
        "recurrent",
        text=text(("    result, state = ", "    result, _ = ")),
    ),
    Mutant(
        "chunks carry an undecayed state",
        "gated",
        "chunkwise",
        text=text(("entering = state.addcmul_(entering, left)\n", "entering = state.add_(entering)\n")),
    ),
    Mutant(
        "the last state's gradient is dropped",
        "gated",
        "chunkwise",
        text=text(("d_states[-1] = d_final.flatten(0, 1)", "d_states[-1] = 0")),
    ),
    Mutant(
        "a gate's gradient without the chunks' totals",
        "gated",
        "chunkwise",
        text=text(("d_total = d_leaving.mul_(entering).sum(-1)", "d_total = 0 * d_leaving.mul_(entering).sum(-1)")),
    ),
    Mutant(
        "exponentials of negative sums of decays",
        "head_gated",
        "chunkwise",
        text=text(
            (
                "spans = rows.triu(1).cumsum_(-1).exp_()",
                "spans = (rows[..., :1, :].cumsum(-1).exp() * (-decay.cumsum(-1)).exp().unsqueeze(-1)).contiguous()",
            ),
            (
                "sums = decay.double().clamp_(min=-1e5).div_(math.log(2)).cumsum_(-1)",
                "return (decay.cumsum(-1).exp().unsqueeze(-1) * (-decay.cumsum(-1)).exp().unsqueeze(-2)).tril_()",
            ),
        ),
    ),
    Mutant(
        "attention that counts its rows from the state on",
        "attention",
        "chunkwise",
        text=text(("torch.arange(q.shape[-2], device=q.device) + first", "torch.arange(q.shape[-2], device=q.device)")),
    ),
    Mutant(
        "online softmax without a rescale",
        "strict_attention",
        "chunkwise",
        text=text(("read.mul_(shrink).add_(", "read.add_("), ("side: int = 256", "side: int = 2")),
    ),
    Mutant(
        "exponentials before the mask",
        "strict_attention",
        "chunkwise",
        text=text(
            (
                "weights = torch.exp_(scores - shift)\n        shrink",
                "weights = torch.exp(plan.flat(plan.scores(*plan.cut(operands, row, rows, column, columns))[0]) - shift)\n"
                "        shrink",
            )
        ),
    ),
    Mutant(
        "softmax gradient without its mean",
        "strict_attention",
        "chunkwise",
        text=text(("weights * (d_weights - delta[..., here, None])", "weights * d_weights")),
    ),
    Mutant(
        "operands of a combine exchanged",
        "mixing",
        "scan",
        text=text(("torch.bmm(steps[i], whole)", "torch.bmm(whole, steps[i])")),
    ),
    Mutant(
        "an adjoint without transposition",
        "mixing",
        "scan",
        text=text(("back[before] = a[after].mT.conj()", "back[before] = a[after].conj()")),
    ),
    Mutant(
        "feedback's gradient without the state",
        "slow_delta",
        "chunkwise",
        text=text(("earlier.baddbmm_(one.mT, later)", "pass")),
    ),
    Mutant(
        "a result in half precision",
        "started",
        "scan",
        text=text(
            (
                "    h: Tensor = _AffineScan.apply(",
                "    b = b.bfloat16().to(b.dtype) if b.dtype == torch.float32 else b\n    h: Tensor = _AffineScan.apply(",
            )
        ),
    ),
    Mutant(
        "a ring's chunk without what enters it",
        "tropical",
        "scan",
        text=text(("entering.append(add(mul(factor, entering[-1]), value))", "entering.append(value)")),
    ),
]

MUTANTS = [*IN_FORMS, *IN_TEXTS]
