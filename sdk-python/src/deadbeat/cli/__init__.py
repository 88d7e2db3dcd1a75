"""The commands `audit`, `watch` and `doctor`."""
