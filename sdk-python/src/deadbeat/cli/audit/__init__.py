"""Looks at a Celery application once and says what is wrong."""
