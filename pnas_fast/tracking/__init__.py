"""Listeners: what is told to people and kept of a run while it goes on."""
