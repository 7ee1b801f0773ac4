"""`seqc fmt FILE..`: the canonical layout; comments stay, the tree does not change."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from seqdsl.syntax import format_module, parse, read_source


def run(arguments: argparse.Namespace) -> int:
    """0; with --check, 1 if a file is not in the layout."""
    changed = 0
    for name in arguments.files:
        path = Path(name)
        source = read_source(path)
        text = format_module(parse(source))
        if arguments.stdout:
            sys.stdout.write(text)
        elif text != source.text:
            changed += 1
            if arguments.check:
                print(f"{path} is not in the layout")
            else:
                path.write_text(text, encoding="utf-8")
                print(f"wrote {path}")
    return 1 if arguments.check and changed else 0
