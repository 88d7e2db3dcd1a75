"""Reports of runs, and the headers that identify them."""
