"""A run's report in a browser while its search goes on: shown, never written, and nothing else with it."""
