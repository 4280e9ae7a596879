"""Long training of one chosen cell: ``python -m pnas_fast.train``."""

from pnas_fast.train.config import TrainConfig

__all__ = ["TrainConfig"]
