"""Strategies side by side: the command, its runs, and what is computed and drawn from them."""
