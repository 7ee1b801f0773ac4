"""References for library/attention."""
