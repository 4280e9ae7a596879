"""Long training of one chosen cell: ``python -m pnas_fast.train``."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pnas_fast.train.config import TrainConfig

__all__ = ["TrainConfig"]


def __getattr__(name: str) -> Any:
    # Later: what the command says to OpenMP's runtime it must say before torch is imported.
    if name == "TrainConfig":
        from pnas_fast.train.config import TrainConfig

        return TrainConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
