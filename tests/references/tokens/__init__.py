"""References for library/tokens."""
