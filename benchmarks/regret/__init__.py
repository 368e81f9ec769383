"""How well suggested learning rates train, beside the peers and simple rules: `make regret`."""
