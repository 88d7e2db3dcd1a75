"""Proves that the SDK works in a set-up."""
