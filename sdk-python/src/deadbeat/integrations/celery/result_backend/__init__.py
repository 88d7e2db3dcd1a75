"""Finds out whether the result backend answers."""
