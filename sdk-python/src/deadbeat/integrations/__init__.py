"""Integrations that report from inside the processes of a task queue."""
