"""References for library/vision."""
