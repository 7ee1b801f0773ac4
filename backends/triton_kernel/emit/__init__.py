"""Kernels written for equations: from the graph to the text of Triton kernels.

Three kinds of things have kernels of their own:
- normalised reads: `score` says what a block of scores is made of, `bounds` finds the blocks that a guard leaves,
  `forward` and `adjoint` write the three kernels, `write` calls them;
- recurrences that walk through time, over rings, by declared monoids, or nonlinear: `step` is one step of theirs,
  `step_kernels` writes the walks there and back, `recurrences` calls them;
- one position of any recurrence, for decoding: `groups` says which equations go together, `chain` writes their kernel,
  `chains` calls it.
`texts` spells expressions for all of them, `derivatives` differentiates them, `numbers` are what a call tells them.
Architecture invariant: knows no mixer; a
score is any elementwise expression of what varies along its rows, along its columns, or along neither, and of products
summed over one feature axis; a group is elementwise but for reductions over the axes of its states.
"""
