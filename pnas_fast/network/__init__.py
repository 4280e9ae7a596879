"""Networks made of cells."""

from pnas_fast.network.child import ChildNetwork

__all__ = ["ChildNetwork"]
