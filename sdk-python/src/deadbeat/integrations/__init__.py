"""What watches a task queue from inside of its processes."""
