"""Kernels written for equations: from the graph to the text of Triton kernels.

Of a normalised read `score` says what a block of scores is made of, `bounds` finds the blocks that a guard leaves,
`forward` and `adjoint` write the three kernels, and `write` calls them. Of a step `groups` says which equations go together,
`chain` writes their kernel, and `chains` calls it. `texts` spells expressions for both. Architecture invariant: knows no
mixer; a score is any elementwise expression of what varies along its rows, along its columns, or along neither, and of
products summed over one feature axis; a group is elementwise but for reductions over the axes of its states.
"""
