"""Meaning: names, axes, sizes, types and calls; from a tree to a system of recurrence equations.

Every error in a user's text that is not one of syntax is reported here, from the tree. Entry points: `load_system`,
`load_file`, `lower_mixer`.
"""

from seqdsl.semantics.files import library, load_file
from seqdsl.semantics.lower import choose, load_system, lower_mixer, mixers, static_options

__all__ = ["choose", "library", "load_file", "load_system", "lower_mixer", "mixers", "static_options"]
