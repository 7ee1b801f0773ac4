"""Discharging obligations: random inputs that are made to break things, claims, forms and modules against the truth.

Architecture invariant: knows no concrete backend; one is loaded by name. The interpreter decides what is right.
"""
