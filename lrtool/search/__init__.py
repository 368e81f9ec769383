"""What a find does: first update, sweeps, trials, race."""
