"""How good a cell is: a child trained and evaluated."""

from pnas_fast.evaluation.child import ChildResult, ChildTraining, build_child, train_child

__all__ = ["ChildResult", "ChildTraining", "build_child", "train_child"]
