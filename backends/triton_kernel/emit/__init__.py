"""Kernels written for one equation: from the graph of a normalised read to the text of its Triton kernels.

`score` says what a block of scores is made of, `texts` spells it, `bounds` finds the blocks that a guard leaves,
`attention` writes the three kernels. Architecture invariant: knows no mixer; a score is any elementwise expression of
what varies along its rows, along its columns, or along neither, and of products summed over one feature axis.
"""
