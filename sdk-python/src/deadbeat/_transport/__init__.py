"""Carries events from the host's process to the server."""
