"""`seqc`: check, explain, compile, test, ir, list, fmt and bench, from the command line.

Exit status: 0 when all holds, 1 when something was refuted or failed, 2 for a user's error in the file or the command
line, 3 for a bug of the compiler. FILE is a path or a library name everywhere.
"""

from seqdsl.cli.main import main

__all__ = ["main"]
