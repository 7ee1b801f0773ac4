"""Targets of the compiler, one folder each; `seqdsl` loads one by its name and imports none of them.

Architecture invariant: a backend may import `seqdsl.ir`, `algebra`, `forms`, `plan` and `diagnostics`, and never
another backend. Adding a target is adding a folder.
"""
