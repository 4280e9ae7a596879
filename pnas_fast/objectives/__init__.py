"""What a cell may be good at, and which cells no other beats."""

from pnas_fast.objectives.additive import AdditiveCost
from pnas_fast.objectives.front import pareto_front
from pnas_fast.objectives.measured import Accuracy, MultiplyAdds, Parameters

__all__ = ["Accuracy", "AdditiveCost", "MultiplyAdds", "Parameters", "pareto_front"]
