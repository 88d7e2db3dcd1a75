"""Samples a broker without taking a message."""
