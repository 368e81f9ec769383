"""What computes: device and precision, the step, the sweep, the restoring of state."""
