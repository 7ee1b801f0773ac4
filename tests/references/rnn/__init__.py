"""References for library/rnn."""
