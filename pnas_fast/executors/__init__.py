"""Where children run: worker processes on their devices, and what happens when one dies."""
