"""The system of recurrence equations: operators, sizes, dependences, state, text, validator, interpreter."""
