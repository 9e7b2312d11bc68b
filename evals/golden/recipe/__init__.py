"""Slow NumPy float64 implementations, from the specification; they import nothing of Parley."""
