"""How good a cell is: a child trained and evaluated."""

from pnas_fast.evaluation.child import ChildResult, build_child, train_child

__all__ = ["ChildResult", "build_child", "train_child"]
