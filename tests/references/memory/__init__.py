"""References for library/memory."""
