"""What becomes of runs, and the headers that name them."""
