"""The dual form computes what the primal does; its reference is the same."""

from __future__ import annotations

from .ttt_mlp import ttt_mlp, ttt_mlp_example

ttt_mlp_dual, ttt_mlp_dual_example = ttt_mlp, ttt_mlp_example
