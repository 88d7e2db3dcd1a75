"""Looks at a broker without taking a message."""
