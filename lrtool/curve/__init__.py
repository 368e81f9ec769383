"""NumPy and SciPy only: from losses to a learning rate."""
