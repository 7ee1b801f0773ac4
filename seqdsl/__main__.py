"""`python -m seqdsl` is `seqc`."""

import sys

from seqdsl.cli import main

sys.exit(main())
