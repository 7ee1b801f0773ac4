"""References for library/scan."""
