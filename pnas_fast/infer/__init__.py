"""Exported networks on images; ``python -m pnas_fast.infer``."""
