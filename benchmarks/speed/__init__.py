"""How fast lrtool is, beside a plain loop and the peers: `make bench`."""
