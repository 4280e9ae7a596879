"""How a policy learns from a batch of cells: PPO (Schulman et al., 2017) or REINFORCE (Williams, 1992)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pnas_fast.strategies.policy import Policy
from pnas_fast.surrogate.adam import Adam

CLIP = 0.2
"""A ratio of probabilities is worth following up to 1 ± this."""


def ppo_loss(log_probability: Tensor, sampled: Tensor, advantage: Tensor) -> Tensor:
    """−mean min(ρ·A, clip(ρ, 1 − `CLIP`, 1 + `CLIP`)·A), where ρ = exp(log_probability − sampled).

    Args:
        log_probability: of each cell now, (n,).
        sampled: of each when it was sampled, (n,), constants.
        advantage: A, reward minus baseline, (n,).
    """
    ratio = (log_probability - sampled).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage).mean()


def reinforce_loss(log_probability: Tensor, sampled: Tensor, advantage: Tensor) -> Tensor:
    """−mean log_probability·A: see `ppo_loss`; how likely cells were when sampled has no say."""
    return -(log_probability * advantage).mean()


@dataclass(frozen=True, slots=True)
class Algorithm:
    """What is made smaller, ``loss`` − ``entropy_weight`` · mean entropy, and in how many steps a batch."""

    loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    steps: int
    entropy_weight: float


ALGORITHMS = {"ppo": Algorithm(ppo_loss, 4, 1e-5), "reinforce": Algorithm(reinforce_loss, 1, 1e-4)}


class Learner:
    """Changes a policy in place, by Adam.

    Args:
        policy: to change.
        algorithm: how, such as one of `ALGORITHMS`.
        rate: Adam's learning rate.
    """

    def __init__(self, policy: Policy, algorithm: Algorithm, rate: float) -> None:
        self._policy, self._algorithm, self._rate = policy, algorithm, rate
        self._adam = Adam(policy.parameters)

    def learn(self, values: Tensor, sampled: Tensor, advantage: Tensor) -> None:
        """Take the algorithm's steps on the choices of n cells, int64 (n, 4 B); see `ppo_loss`."""
        for _ in range(self._algorithm.steps):
            log_probability, entropy = self._policy.evaluate(values)
            loss = self._algorithm.loss(log_probability, sampled, advantage)
            loss = loss - self._algorithm.entropy_weight * entropy.mean()
            self._adam.step(torch.autograd.grad(loss, self._policy.parameters), self._rate)
