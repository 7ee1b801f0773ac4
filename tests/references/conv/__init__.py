"""References for library/conv."""
