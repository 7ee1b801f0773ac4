"""Text to tree and back: grammar, parser, formatter.

Architecture invariant: knows no meaning; whatever parses, formats, and parses to an equal tree again.
Entry points: `parse`, `parse_text`, `read_source`; `format_module`; the table of codes is `faults.SYNTAX`.
"""

from seqdsl.syntax.formatter import format_module
from seqdsl.syntax.parser import parse, parse_text, read_source

__all__ = ["format_module", "parse", "parse_text", "read_source"]
