"""Training of one child."""

from pnas_fast.training.loading import load_training_data
from pnas_fast.training.settings import TrainingSettings
from pnas_fast.training.stepper import Stepper
from pnas_fast.training.trainer import ChildResult, build_child, evaluate, train_child

__all__ = [
    "ChildResult",
    "Stepper",
    "TrainingSettings",
    "build_child",
    "evaluate",
    "load_training_data",
    "train_child",
]
