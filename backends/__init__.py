"""Targets of the compiler, one folder each; `seqdsl` loads one by its name and imports none of them.

Architecture invariant: a backend may import `seqdsl.ir`, `algebra`, `forms`, `plan` and `diagnostics`, and of
other backends only the one that it builds on (`triton_kernel` on `torch_module`). Adding a target is adding a folder.
"""
