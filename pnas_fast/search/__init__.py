"""The search: driver, configuration, command."""
