"""`seqc explain FILE` prints the derivation of every form; `seqc explain CODE` the long form of an error."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict, replace
from typing import Any

from seqdsl.algebra import classify_all
from seqdsl.api import load_backend
from seqdsl.cli.codes import codes, explanation
from seqdsl.cli.common import console, escape, mark, print_json, systems
from seqdsl.diagnostics import SeqError, did_you_mean
from seqdsl.forms import DISTRIBUTED, FORMS, derive
from seqdsl.forms.adjoint import adjoint
from seqdsl.forms.newton_rank import couplings
from seqdsl.ir.show import show
from seqdsl.ir.system import System, Tensor
from seqdsl.plan import choose, cost
from seqdsl.report import Report, report

LENGTH, HEADS, WIDTH = 8192, 96, 128  # one usual shape on GPUs, for counting what launches move


def run(arguments: argparse.Namespace) -> int:
    """0 where nothing is refuted, else 1."""
    known = explanation(arguments.file)
    if known is not None:
        print_json({"code": arguments.file, "explanation": known[0], "example": known[1]}) if arguments.json else _code(
            arguments.file, *known
        )
        return 0
    try:
        found = systems(arguments)
    except SeqError as error:
        near = did_you_mean(arguments.file, codes())
        if error.code != "file-not-found" or error.diagnostics[0].help.startswith("did") or not near:
            raise
        raise SeqError(error.code, f"{error.diagnostics[0].message}, and no error this code", help=near) from None
    reports = [report(system) for system in found]
    backend = None if arguments.backend == "torch" else load_backend(arguments.backend)
    if arguments.json:
        print_json([{**r.to_dict(), "adjoint": backward(r.system), "derivation": derivation(r.system, backend),
                     **({} if backend is None else {"launches": launches(r, backend)})} for r in reports])  # fmt: skip
    else:
        for one in reports:
            _explain(one, backend)
    return 0 if all(r.ok for r in reports) else 1


def _code(code: str, text: str, example: str) -> None:
    out = console()
    out.print(f"{mark(code, 'bold')}\n\n{escape(text)}")
    if example:
        out.print("\nFor example:\n\n" + "\n".join("    " + escape(line) for line in example.rstrip().split("\n")))


def derivation(system: System, backend: Any = None) -> dict[str, Any]:
    """For each form: the equations it changes, the law it relies on, the loops that stay, its cost; or why it cannot be
    had. Of a backend, what runs in kernels of its own."""
    found: dict[str, Any] = {}
    for name in (*FORMS, DISTRIBUTED):
        try:
            derived = derive(system, name)
        except SeqError as error:
            found[name] = {"unavailable": error.diagnostics[0].message, "because": list(error.diagnostics[0].notes)}
            continue
        changed = [t for t in derived.system.derived() if system.tensors.get(t.name) != t]
        laws = [f"{o.law}: {o.because}" for o in derived.obligations]
        if name == DISTRIBUTED:  # its equations are those of a piece, whose form is another one's
            inner = choose(derived.system)
            laws.append(f"what each rank computes of its piece is in the form {inner.form}")
            derived = replace(derived, kept=inner.kept)
        found[name] = {
            "equations": [_text(derived.system, t) for t in changed if t.rhs is not None],
            "law": laws,
            "proof": {law: v.to_dict() for o in derived.obligations if o.prove for law, v in o.prove().items()},
            "loops": [f"{kept.names}: {kept.why}" for kept in derived.kept if derived.rewritten],
            "cost": cost(inner.system if name == DISTRIBUTED else derived.system).to_dict(),
        }
        if backend is not None:
            found[name]["kernels"] = backend.explained(derived.system, name)
    return found


def backward(system: System) -> dict[str, Any]:
    """The adjoint: what its recurrences are, and its equations; or why there is none."""
    try:
        found = adjoint(system)
    except SeqError as error:
        return {"unavailable": error.diagnostics[0].message}
    try:
        chunkwise = _equations(derive(found, "chunkwise").system, system)
    except SeqError:
        chunkwise = []
    return {
        "recurrences": [
            f"{', '.join(r.states)} {'down' if r.reverse else 'along'} {r.axis}: {r.kind}" for r in classify_all(found)
        ],
        "equations": _equations(found, system),
        "chunkwise": chunkwise,
    }


def launches(found: Report, backend: Any) -> dict[str, Any]:
    """What every launch of a backend's kernels moves, in the form that is chosen, at one usual shape; or why it is not known."""
    from seqdsl.cli.bench import usual_sizes
    from seqdsl.verify.modules import module_sizes

    try:
        system = derive(found.system, found.chosen).system
        sizes = usual_sizes(system, LENGTH, WIDTH, h=HEADS)
        shapes = [(1, *(sizes[i] for i in x.indices)) for x in system.inputs()]
        streamed = [set(x.indices) - {system.stream} for x in system.inputs() if system.stream in x.indices]
        planes = (math.prod(sizes[i] for i in set.intersection(*streamed)),) if streamed else ()
        count = backend.count(system, found.chosen, shapes, planes=planes, **module_sizes(system, sizes))
    except Exception as error:  # whatever a module says that wants numbers where there are only shapes
        return {"unavailable": f"{type(error).__name__}: {str(error)[:200]}"}
    return {
        "form": found.chosen,
        "sizes": {n: size for n, size in sizes.lengths.items() if "." not in n},
        **{part: {"least bytes": count.least[part], "times least": round(count.ratio(part), 3),
                  "launches": [asdict(x) for x in rows]} for part, rows in count.launches.items()},
    }  # fmt: skip


def _equations(found: System, system: System) -> list[str]:
    """What a rewriting has added to a system."""
    new = [t for t in found.derived() if t.rhs is not None and t.name not in system.tensors]
    return [_text(found, t) for t in new if t.rhs is not None]


def _text(system: System, tensor: Tensor) -> str:
    """An equation; of one that newton solves, the slopes of its step, long parts left out."""
    rhs, name = tensor.rhs, _signature(tensor.name, tensor.indices)
    if rhs is None or rhs.op != "newton":
        return f"{name} = {'' if rhs is None else show(rhs)}"
    _, start, *slopes = rhs.args
    coupled = couplings(system).get(tensor.name)
    shown = list(map(repr, slopes if coupled is None else slopes[: len(coupled)]))
    for terms in coupled or []:
        each = [f"{t.left!r} times {t.right!r}" + (f", over {','.join(t.over)}" if t.over else "") for t in terms]
        shown.append("columns times rows " + " + ".join(each) if each else "0")
    return f"{name} = newton(the step, {start!r}, slopes by the states before: {'; '.join(shown)})"


def _signature(name: str, indices: tuple[str, ...]) -> str:
    return f"{name}[{','.join(indices)}]" if indices else name


def _explain(found: Report, backend: Any) -> None:
    from seqdsl.cli.check import show as show_report

    out = console()
    show_report(found)
    system = found.system
    out.print("\n  " + mark("equations", "bold"))
    for tensor in system.derived():
        if tensor.rhs is not None:
            out.print(escape(f"    {_signature(tensor.name, tensor.indices)} = {show(tensor.rhs)}"))
    for finding in found.findings:
        if finding.monoid is not None:
            out.print(f"\n  {mark('monoid', 'bold')} of {escape(', '.join(finding.recurrence.states))}")
            for label in ("element", "identity", "combine", "lift", "project"):
                text = getattr(finding.monoid, label, "")
                if text:
                    out.print(escape(f"    {label:9} {text}"))
    _explain_backward(backward(system))
    for name, form in derivation(system, backend).items():
        out.print("\n  " + mark(f"form {name}", "bold") + (" (auto)" if name == found.chosen else ""))
        if "unavailable" in form:
            out.print(escape(f"    not available: {form['unavailable']}"))
            for reason in form["because"]:
                out.print(escape(f"      {reason}"))
            continue
        for line in form["law"]:
            out.print(escape(f"    relies on: {line}"))
        for law, verdict in form["proof"].items():
            out.print(escape(f"      {law}: {verdict['verdict']}, {verdict.get('how', '')}"))
        for line in form["loops"]:
            out.print(escape(f"    stays a loop: {line}"))
        for line in form["equations"]:
            out.print(escape(f"    {line}"))
        out.print(escape("    cost: " + "; ".join(f"{k} {v}" for k, v in form["cost"].items())))
        for line in form.get("kernels", []):
            out.print(escape(f"    {line}"))
    if backend is not None:
        _explain_launches(launches(found, backend))
    out.print()


def _explain_launches(found: dict[str, Any]) -> None:
    out = console()
    if "unavailable" in found:
        out.print(escape(f"\n  launches: not counted: {found['unavailable']}"))
        return
    sizes = ", ".join(f"|{n}| {size}" for n, size in found["sizes"].items())
    out.print(f"\n  {mark('launches', 'bold')} of form {found['form']} for one sequence in bfloat16, {escape(sizes)}")
    out.print("    bytes moved are the distinct ones of a launch; those that its programs ask for again come from the cache")
    for part in ("forward", "backward"):
        least = found[part]["least bytes"] / 1e9
        out.print(f"    {part}: {found[part]['times least']:.2f} times the {least:.3f} GB of inputs and outputs, each once")
        for x in found[part]["launches"]:
            grid = " x ".join(map(str, x["grid"])) + (" operations" if x["name"] == "PyTorch" else " programs")
            out.print(f"      {x['name']:22} {grid:26} {x['moved'] / 1e9:8.3f} GB moved, {x['asked'] / 1e9:8.3f} asked for"
                      + (f", {x['flops'] / 1e9:.1f} GFLOP of products" if x["flops"] else ""))  # fmt: skip


def _explain_backward(found: dict[str, Any]) -> None:
    out = console()
    out.print("\n  " + mark("adjoint", "bold") + " (the graph of the gradient)")
    if "unavailable" in found:
        out.print(escape(f"    not available: {found['unavailable']}"))
        return
    for line in found["recurrences"]:
        out.print(escape(f"    recurrence {line}"))
    for line in found["equations"]:
        out.print(escape(f"    {line}"))
    if found["chunkwise"]:
        out.print("    " + mark("in chunkwise form", "bold"))
    for line in found["chunkwise"]:
        out.print(escape(f"      {line}"))
