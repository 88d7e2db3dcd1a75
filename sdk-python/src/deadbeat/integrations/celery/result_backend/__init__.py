"""Whether the result backend answers."""
