"""How long networks take on a device: measured, and fitted by a table; ``python -m pnas_fast.latency``."""
