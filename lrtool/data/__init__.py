"""Where samples come from, and how batches reach the device."""
