"""Networks made of cells."""

from pnas_fast.network.auxiliary import AUXILIARY_WEIGHT
from pnas_fast.network.child import ChildNetwork
from pnas_fast.network.genotype import Genotype, Wiring
from pnas_fast.network.layout import Layout
from pnas_fast.network.network import CellNetwork, Logits, multiply_adds_of

__all__ = [
    "AUXILIARY_WEIGHT",
    "CellNetwork",
    "ChildNetwork",
    "Genotype",
    "Layout",
    "Logits",
    "Wiring",
    "multiply_adds_of",
]
