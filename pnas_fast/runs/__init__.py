"""What a run leaves in its folder: configuration, trials, weights."""
