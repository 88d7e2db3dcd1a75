"""Reports on Celery: runs, workers, Beat, the broker and the result backend."""
