"""Published networks by name, and the networks of searched cells; ``python -m pnas_fast.zoo`` lists them."""

from pnas_fast.zoo.create import create_model, from_run, list_models
from pnas_fast.zoo.errors import ZooError
from pnas_fast.zoo.models import MODELS, Model, Preprocessing, Published

__all__ = [
    "MODELS",
    "Model",
    "Preprocessing",
    "Published",
    "ZooError",
    "create_model",
    "from_run",
    "list_models",
]
