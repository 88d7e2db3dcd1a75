"""Examines a Celery application once and reports what is wrong."""
