"""Training of one child."""

from pnas_fast.training.evaluation import evaluate
from pnas_fast.training.graph import replayed
from pnas_fast.training.loading import load_training_data
from pnas_fast.training.loop import TrainingLoop
from pnas_fast.training.precision import DTYPES, resolve_precision
from pnas_fast.training.settings import TrainingSettings
from pnas_fast.training.stepper import Stepper
from pnas_fast.training.trainer import ChildResult, build_child, train_child

__all__ = [
    "DTYPES",
    "ChildResult",
    "Stepper",
    "TrainingLoop",
    "TrainingSettings",
    "build_child",
    "evaluate",
    "load_training_data",
    "replayed",
    "resolve_precision",
    "train_child",
]
