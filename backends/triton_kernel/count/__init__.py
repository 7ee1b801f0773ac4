"""What every launch of a module's kernels moves and multiplies, counted from the kernels' own text, without a GPU.

`language` stands in for Triton: a kernel runs as Python, its indices are numbers and its data only shapes. `launches` runs
a module on tensors without memory and says of each launch which bytes its programs ask for, and which distinct ones.
Entry point: `counted`.
"""

from .launches import Count, Launch, counted

__all__ = ["Count", "Launch", "counted"]
