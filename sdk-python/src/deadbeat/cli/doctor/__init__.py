"""Tests whether the SDK works in a set-up."""
