"""seqdsl: a declarative language and compiler for token mixers.

    text --parse--> tree --check--> system --analyse--> recurrences --derive--> forms --plan--> choice --emit--> code

`seqdsl.diagnostics`  spans, `SeqError`, the table of error codes           knows nothing of the language
`seqdsl.syntax`       parser, tree, formatter                               knows no meaning
`seqdsl.ir`           node, operators, system, dependence, interpreter      knows no classes of recurrences
`seqdsl.semantics`    names, axes, sizes, types, calls: from tree to system; every user error is reported here
`seqdsl.algebra`      what a recurrence is; proofs and counterexamples      knows no forms
`seqdsl.forms`        the rewritings of a system, with their obligations    knows no backend
`seqdsl.plan`         the cost of each form, and the choice
`seqdsl.verify`       discharges obligations; strategies                    knows no concrete backend
`seqdsl.api`          load, check, module, compile
`seqdsl.cli`          `seqc`
`seqdsl.pytest_plugin`  the same for pytest: `pytest library/`
`seqdsl.backends`     one folder for each target, loaded by name

Imports go down this table only (tests/test_imports.py). `semantics` stands above `ir` because checking a tree ends in
a system, which is an `ir` value.

To add
    a mixer      a file in `library/`; its README is `seqc list --markdown`
    an operator  a row of `ir.ops`, with its value in `ir.reference` and its derivative in `ir.derivatives`; a row of
                 `semantics.builtins`, if users may write it; its text in the `table` of the torch target, and in
                 `emit.texts` of the triton target. What the algebra proves of it takes rows of `algebra.expand`,
                 `interval`, `numbers` and `tower`; a cost of its own, one of `plan.operators`
    a form       a file in `forms`, and a row of `forms.derive.FORMS`; its operators as above
    a target     a folder in `backends/`, and a row of `api.BACKENDS`
    an error     a row of `syntax.faults` or `semantics.faults`, or of `cli.codes` if it is none of the language's
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqdsl.config import VERSION as __version__

if TYPE_CHECKING:
    from seqdsl.api import Program, compile, load, load_all
    from seqdsl.diagnostics import SeqError

# In a checkout the sub-packages backends, grammar and library are folders beside this one;
# in an installed wheel they are inside it (pyproject.toml, [tool.setuptools.package-dir]).
_root = Path(__file__).resolve().parent.parent
if (_root / "grammar" / "seq.lark").is_file():
    __path__.append(str(_root))

__all__ = ["Program", "SeqError", "__version__", "compile", "load", "load_all"]


def __getattr__(name: str) -> Any:
    """The public names, loaded when first used: `import seqdsl` alone is quick."""
    if name == "SeqError":
        from seqdsl.diagnostics import SeqError

        return SeqError
    if name in __all__:
        from seqdsl import api

        return getattr(api, name)
    raise AttributeError(f"module 'seqdsl' has no attribute {name!r}")
