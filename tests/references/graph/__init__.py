"""References for library/graph."""
