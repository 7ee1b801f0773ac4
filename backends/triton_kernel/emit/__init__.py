"""Kernels written for equations: from the graph to the text of Triton kernels.

Five kinds of things have kernels of their own:
- normalised reads: `score` says what a block of scores is made of, `bounds` finds the blocks that a guard leaves,
  `forward` and `adjoint` write the three kernels, `write` calls them;
- recurrences that walk through time, over rings, by declared monoids, or nonlinear: `step` is one step of theirs,
  `step_kernels` writes the walks there and back, `recurrences` calls them;
- one position of any recurrence, for decoding: `groups` says which equations go together, `chain` writes their kernel,
  `chains` calls it;
- affine recurrences whose coefficients are expressions, or whose states something reads entry by entry: `scans` says
  which, `affine` is one step of theirs, `affine_kernels` writes tiles of time by entries, `scan_calls` calls them;
- equations over whole sequences that PyTorch would run as many passes over memory: `sequences` says which go together
  and `windows` which sums are over a window of positions, `chain` and `chain_adjoint` write the two kernels,
  `sequence_calls` calls them.
`parts` holds what a kernel computes of an equation and what not, `texts` spells expressions for all of them, `normal`
writes operators through others, `derivatives` differentiates, `numbers` are what a call tells the kernels, `walking` is what those
of recurrences begin with.
Architecture invariant: knows no mixer; a
score is any elementwise expression of what varies along its rows, along its columns, or along neither, and of products
summed over one feature axis; a group is elementwise but for reductions over the axes of its states.
"""
