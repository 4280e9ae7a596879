"""Which cells to look at: one file a strategy."""
