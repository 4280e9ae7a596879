"""Training of one child."""

from pnas_fast.engine.class_weights import class_weights
from pnas_fast.engine.evaluation import Evaluation, evaluate
from pnas_fast.engine.graph import replayed
from pnas_fast.engine.loading import load_training_data, settings_source
from pnas_fast.engine.loop import TrainingLoop
from pnas_fast.engine.precision import DTYPES, resolve_precision
from pnas_fast.engine.settings import TrainingSettings
from pnas_fast.engine.stepper import Stepper

__all__ = [
    "DTYPES",
    "Evaluation",
    "Stepper",
    "TrainingLoop",
    "TrainingSettings",
    "class_weights",
    "evaluate",
    "load_training_data",
    "replayed",
    "resolve_precision",
    "settings_source",
]
