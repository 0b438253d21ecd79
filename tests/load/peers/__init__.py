"""Other face services on the same machine, with the same pictures and callers as ours: `make bench-peers`."""
