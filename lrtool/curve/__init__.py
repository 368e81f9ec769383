"""NumPy only: from losses to a learning rate."""
