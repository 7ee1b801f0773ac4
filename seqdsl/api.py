"""The public face: load a mixer, check it, run it, compile it.

    gla = seqdsl.load("gla")                 # a library name, a path, or source text; load(file, "Name") for one of several
    gla.check()                              # the report: classes, verdicts, forms, costs
    mod = gla.module(form="auto")            # a torch.nn.Module; a layer's sizes by name: module(c=256, H=4)
    ref = gla.interpret(inputs={...})        # float64 numpy, no batch axis: {"outputs": .., "state": ..}
    seqdsl.compile("gla", out="out/")        # what `seqc compile` does

Architecture invariant: torch is imported only where a module is built, and a backend only by name.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any

from seqdsl.algebra import check_folds
from seqdsl.config import VERSION
from seqdsl.diagnostics import SeqError
from seqdsl.forms import Derived
from seqdsl.forms.adjoint import adjoint
from seqdsl.ir.sizes import SizeError, bind, elements
from seqdsl.ir.state import POSITION, NotSteppable, flatten, record_paths, state_record
from seqdsl.ir.system import System
from seqdsl.plan import in_form
from seqdsl.report import Report, report
from seqdsl.semantics import choose, load_file, lower_mixer, mixers, static_options
from seqdsl.semantics.scope import File
from seqdsl.syntax import tree

_KINDS = {"bool": "biu", "int": "biu", "real": "biuf", "complex": "biufc"}  # numpy's kinds for each type
BACKENDS = {"torch": "seqdsl.backends.torch_module", "triton": "seqdsl.backends.triton_kernel"}


@dataclass(frozen=True)
class Program:
    """One mixer of one file. `options` replace defaults, also of those that decide which equations there are.

    Its systems and texts are made once: twelve layers of one mixer are one text, and a report, a module and a run start
    from the same equations."""

    file: File
    mixer: tree.Mixer
    options: Mapping[str, int] = field(default_factory=dict)
    _systems: dict[frozenset[tuple[str, int]], System] = field(default_factory=dict, init=False, repr=False, compare=False)
    _texts: dict[tuple[int, str, str], str] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The mixer's name."""
        return self.mixer.name.plain

    def system(self, **options: int) -> System:
        """The equations, checked. Errors: every `SeqError` of the text."""
        key = self._deciding(options)
        if key not in self._systems:
            self._systems[key] = lower_mixer(self.file, self.mixer, {**self.options, **options}, self.options)
        return self._systems[key]

    def _deciding(self, options: Mapping[str, int]) -> frozenset[tuple[str, int]]:
        """Those of the options that decide which equations there are."""
        return frozenset((n, v) for n, v in options.items() if n in self._static)

    @cached_property
    def _static(self) -> set[str]:
        return static_options(self.file, self.mixer)

    def _literal(self, **options: int) -> System:
        """The equations as they are written, nothing rewritten. Errors: `not-associative`."""
        system = self.system(**options)
        check_folds(system).check()
        return system

    def derived(self, form: str = "auto", **options: int) -> Derived:
        """The system in a form. Errors: `form-not-available` says why; `not-associative`."""
        return in_form(self._literal(**options), form)

    def adjoint(self, form: str = "recurrent", *, state: bool = False, **options: int) -> Derived:
        """The system of the gradient in a form: from the inputs and `o.grad` for each output to `x.bar` for each input and
        parameter; with `state`, from `S.start` and `S.final.grad` to `S.start.bar` as well. Errors: `form-not-available`."""
        return in_form(adjoint(self._literal(**options), state=state), form)

    def check(self) -> Report:
        """Classes, verdicts, forms and costs."""
        return report(self.system())

    def interpret(
        self,
        inputs: Mapping[str, Any],
        params: Mapping[str, Any] | None = None,
        sizes: Mapping[str, int] | None = None,
        state: Mapping[str, Any] | None = None,
        form: str = "recurrent",
    ) -> dict[str, dict[str, Any]]:
        """The reference: float64, no batch axis. Errors: `SeqError` where shapes or sizes do not fit."""
        from seqdsl.ir.interpreter import interpret

        try:
            if not isinstance(sizes or {}, Mapping) or not isinstance(params or {}, Mapping):
                raise SeqError("bad-input", "sizes and params are mappings from names to numbers and arrays")
            integers = _integers(sizes or {}, self)
            system = self._literal(**integers) if form == "recurrent" else self.derived(form, **integers).system
            check_inputs(system, inputs, integers)
            if state is not None and not isinstance(state, Mapping):
                raise SeqError("bad-input", "a state is a mapping from names to arrays")
            check_state(system, state or {})
            return interpret(system, inputs=inputs, params=params, sizes=sizes, state=state)
        except SizeError as error:
            raise size_error(error) from None

    def source(self, form: str = "auto", backend: str = "torch", **sizes: int) -> str:
        """The text of the generated module, the same for the same input."""
        options = {k: v for k, v in sizes.items() if k not in self._axes()}
        derived = self.derived(form, **options)
        key = id(derived.system), derived.form, backend  # kept with the equations: `auto` gives the system of the form it takes
        if key not in self._texts:
            self._texts[key] = self._text(derived, backend, options)
        return self._texts[key]

    def _text(self, derived: Derived, backend: str, options: Mapping[str, int]) -> str:
        digest = hashlib.sha256(self.file.module.span.source.text.encode()).hexdigest()[:16]
        header = f"Generated by seqdsl {VERSION} from {self.file.name}.seq ({digest}), form {derived.form}."
        target = load_backend(backend)
        stepper = self.derived("recurrent", **options).system if getattr(target, "WRITES_STEPS", False) else None
        return emit(derived.system, self.class_name, target, form=derived.form, header=header, stepper=stepper)

    @property
    def class_name(self) -> str:
        """The mixer's name in capitals: `gated_delta` gives `GatedDelta`; a layer keeps its name."""
        parts = self.name.split("_")
        return "".join(p[:1].upper() + p[1:] for p in parts if p) or self.name

    def module(self, form: str = "auto", backend: str = "torch", **sizes: int) -> Any:
        """A torch.nn.Module; `sizes` are options, and the lengths that parameters need, by name."""
        options = _integers({k: v for k, v in sizes.items() if k not in ("device", "dtype")}, self)
        text = self.source(form, backend, **options)
        system = self.system(**{k: v for k, v in options.items() if k not in self._axes()})
        decided = {o.name.plain for o in self.mixer.options} - {*system.options}  # the text has their numbers
        _affordable(system, options)
        try:
            return load_backend(backend).build_module(
                text, self.class_name, **{k: options.get(k, v) for k, v in sizes.items() if k not in decided}
            )
        except TypeError as error:  # a length that parameters need was not given
            raise SeqError("missing-size", str(error)) from None
        except ValueError as error:
            raise SeqError("bad-size", str(error)) from None

    def _axes(self) -> set[str]:
        return {
            i.name.plain if isinstance(i, tree.NewIndex) else i.plain
            for p in self.mixer.params
            for i in p.indices or ()
        }


def _affordable(system: System, given: Mapping[str, int]) -> None:
    """Parameters are of a size that a machine may have. Errors: `size-too-large`."""
    options, lengths = ({k: v for k, v in given.items() if k in names} for names in (system.options, system.indices))
    try:
        sizes = bind(system, options, lengths, complete=False)
        for tensor in system.params():
            if all(i in sizes.lengths for i in tensor.indices):
                elements(system, tensor, sizes)
    except SizeError as error:
        if error.code == "size-too-large":  # what else is wrong with them the module says in its own words
            raise size_error(error) from None


def _integers(sizes: Mapping[str, Any], program: Program) -> dict[str, int]:
    """Sizes by name, as integers. Errors: `bad-size`, `unknown-size`."""
    known = {o.name.plain for o in program.mixer.options}
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise SeqError("bad-size", f"the size `{name}` is an integer, not {value!r}")
        if value < 0:
            raise SeqError("bad-size", f"the size `{name}` is {value}, and must not be negative")
    strange = [n for n in sizes if n not in known and n not in program.system(**_only(sizes, known)).indices]
    if strange:
        raise SeqError("unknown-size", f"`{program.name}` has no option or axis `{strange[0]}`")
    return {name: int(value) for name, value in sizes.items()}


def _only(sizes: Mapping[str, Any], names: set[str]) -> dict[str, int]:
    return {n: int(v) for n, v in sizes.items() if n in names}


def check_inputs(system: System, inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
    """Inputs by name, of their types and lengths. Errors: `bad-input`, `size-mismatch`."""
    import numpy as np

    if not isinstance(inputs, Mapping):
        raise SeqError("bad-input", "inputs are a mapping from names to arrays")
    expected = {t.name: t for t in system.inputs()}
    for name, value in inputs.items():
        tensor = expected.get(name)
        if tensor is None:
            raise SeqError("bad-input", f"`{system.name}` has no input `{name}`", help=f"it has: {', '.join(expected)}")
        try:
            array = np.asarray(value)
        except (ValueError, TypeError, RuntimeError) as error:  # a tensor of PyTorch that has a gradient, too
            raise SeqError("bad-input", f"the input `{name}` is no array: {str(error).lower()}") from None
        if array.size and array.dtype.kind not in _KINDS[tensor.dtype]:
            raise SeqError("bad-input", f"the input `{name}` is {tensor.dtype}, and its values are {array.dtype}")
        for index, length in zip(tensor.indices, array.shape, strict=False):
            if sizes.get(index, length) != length:
                raise SeqError("size-mismatch", f"`{name}` has length {length} along `{index}`, not {sizes[index]}")


def check_state(system: System, state: Mapping[str, Any]) -> None:
    """Entries that the mixer keeps, where it keeps any. Errors: `bad-input`."""
    try:
        paths = record_paths(e.name for e in state_record(system))
        kept = {*paths, *(".".join(path) for path in paths.values())}
    except NotSteppable:
        return
    strange = next((name for name in flatten(state) if name not in kept | {POSITION}), None)
    if strange is not None:
        listed = ", ".join(sorted(kept)) or "none"
        raise SeqError("bad-input", f"`{system.name}` keeps no state `{strange}`", help=f"it keeps: {listed}")


def load_backend(name: str) -> Any:
    """A backend by its name in `BACKENDS`. Errors: `unknown-backend`, `backend-not-available`."""
    if name == "auto":
        name = "torch"
    if name not in BACKENDS:
        listed = f"backends: {', '.join(BACKENDS)}; the interpreter of the equations is `Program.interpret`"
        raise SeqError("unknown-backend", f"no backend is named `{name}`", help=listed)
    try:
        return importlib.import_module(BACKENDS[name])
    except ModuleNotFoundError as error:
        raise SeqError(
            "backend-not-available",
            f"the backend `{name}` needs `{error.name}`, which is not installed",
            help=f"pip install {error.name}",
        ) from None


def emit(
    system: System, class_name: str, backend: Any, *, form: str, header: str = "", stepper: System | None = None
) -> str:
    """The text of a module; `stepper` are the equations in recurrent form, for a backend that writes steps. Errors:
    `unsupported`."""
    try:
        return str(backend.emit_module(system, class_name=class_name, header=header, form=form, stepper=stepper))
    except backend.Unsupported as error:
        raise SeqError("unsupported", f"the backend has no text for {error}") from None


def load(what: str | Path, mixer: str | None = None, **options: int) -> Program:
    """A mixer of a library name, a path, or source text: the named one, the file's namesake, or the first."""
    if mixer is not None and not isinstance(mixer, str):
        raise SeqError("unknown-mixer", f"a mixer's name is a text, not {mixer!r}")
    program = Program(*choose(load_file(what), mixer), options)
    _check_options([program])
    _integers(options, program)
    return program


def load_all(what: str | Path, **options: int) -> list[Program]:
    """Every mixer that a file itself declares."""
    file = load_file(what)
    programs = [Program(file, m, options) for m in mixers(file)]
    _check_options(programs)
    return programs


def _check_options(programs: list[Program]) -> None:
    """Every option that is given belongs to one of the mixers."""
    known = {o.name.plain for p in programs for o in p.mixer.options}
    for name in {n for p in programs for n in p.options} - known:
        listed = ", ".join(f"`{n}`" for n in sorted(known)) or "none"
        raise SeqError("unknown-option", f"no option `{name}` to set", help=f"there are: {listed}")


def size_error(error: SizeError) -> SeqError:
    """A size that does not work out, as a user's error."""
    return SeqError(error.code, error.message, notes=(error.note,) if error.note else ())


def compile(
    what: str | Path,
    out: str | Path = ".",
    *,
    mixer: str | None = None,
    form: str = "auto",  # noqa: A001
    backend: str = "torch",
    validate: bool = True,
    **options: int,
) -> list[Path]:
    """Write `NAME.py` for a file (or one of its mixers) into `out`, after validating it against the interpreter.

    What the modules import (`NAME_kernels.py` of the triton backend) stands beside them. Nothing is written if validation
    fails. Returns the paths written.
    """
    return [*compiled(what, out, mixer=mixer, form=form, backend=backend, validate=validate, **options)]


def compiled(
    what: str | Path, out: str | Path, *, mixer: str | None, form: str, backend: str, validate: bool, **options: int
) -> dict[Path, bool]:
    """What `compile` writes, and of each file whether it was compared with the equations: sizes that the text states may be
    too large to try."""
    from seqdsl.verify.modules import validate_module

    programs = [load(what, mixer, **options)] if mixer else load_all(what, **options)
    if not programs:
        raise SeqError("unknown-mixer", "the file declares no mixer to compile")
    texts: dict[str, str] = {}
    target, tried = load_backend(backend), validate
    for program in programs:
        texts[program.name] = program.source(form, backend)
        if validate:
            tried &= validate_module(program.derived(form), texts[program.name], program.class_name, target)
    others = {name: text for module in texts.values() for name, text in target.companions(module).items()}
    try:
        return dict.fromkeys(_write(Path(out), texts | others), tried)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SeqError("file-not-written", f"nothing can be written to `{out}`: {reason.lower()}") from None


def _write(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for name, text in texts.items():
        taken = {p.stem.lower() for p in written}  # gla and GLA are one file name on some systems
        path = folder / f"{name if name.lower() not in taken else name + '_layer'}.py"
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written
