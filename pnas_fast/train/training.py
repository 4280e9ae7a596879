"""A network in long training: everything that changes, a step of it, and going on from a checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from pnas_fast.data import DataSet, TrainingBatches
from pnas_fast.engine import DTYPES, Evaluation, Stepper, TrainingLoop, class_weights, evaluate, replayed
from pnas_fast.engine.averaging import WeightAverage
from pnas_fast.engine.stepper import SCALER
from pnas_fast.kernels import share_batch_norms
from pnas_fast.network import CellNetwork
from pnas_fast.train.checkpoint import Checkpoint, CheckpointError
from pnas_fast.train.config import TrainConfig
from pnas_fast.train.group import Group
from pnas_fast.train.network import build


class LongTraining:
    """A network, what trains it, and what it has seen.

    What a step does depends on the state before it and on the step's number alone: batches are those of
    (seed, epoch, index), and drop-path's generator is seeded anew with (seed, step). So a training that
    goes on from `tensors` is, bit for bit on a CPU, the one that was never stopped.

    Args:
        config: resolved.
        data: on this process's device.
        group: the processes that train together; each works on its share of every batch.

    Attributes:
        steps: in an epoch.
        network: the one that learns.
        stepper: what updates it.

    Raises:
        ConfigError: a network that cannot be built for such images.
    """

    def __init__(self, config: TrainConfig, data: DataSet, group: Group) -> None:
        self._config, self._data, self._group = config, data, group
        self._validation = _share(data, group)
        self.network = build(config, data)
        if group.size > 1:
            share_batch_norms(self.network)
            self.network.share_drop_path(group.rank, group.size)
        self.stepper = Stepper(
            self.network,
            config,
            auxiliary=config.auxiliary,
            average=group.average,
            weights=class_weights(config, data),
        )
        self._averaged: CellNetwork | None = None
        self._average: WeightAverage | None = None
        if config.ema > 0:
            self._averaged = build(config, data)
            self._average = WeightAverage(self.network, self._averaged, config.ema)
        share = (group.rank, group.size)
        self._type = DTYPES[config.precision]
        self._batches = TrainingBatches(
            data, config.batch, config.seed, cutout=config.cutout, dtype=self._type, share=share
        )
        self.steps = len(self._batches)
        self._loop = TrainingLoop(self.network, self.stepper, self._batches, config.epochs)
        # A graph that holds an exchange between processes is something that nobody has tried here.
        device = self._batches.device
        alone = group.size == 1
        self._step = replayed(self._loop.step, device, config.backend) if alone else self._loop.step
        self._next = -1

    @property
    def losses(self) -> Tensor:
        """The sum of the steps' losses in this epoch, float64, on the device."""
        return self._loop.losses

    @property
    def images(self) -> int:
        """Images of an epoch, over all processes."""
        return self.steps * self._batches.images

    @property
    def judged(self) -> CellNetwork:
        """The network whose accuracy counts and whose weights are kept: the averaged one, if any."""
        return self.network if self._averaged is None else self._averaged

    def begin_with(self, weights: Mapping[str, Tensor]) -> list[str]:
        """Put weights in the place of random ones where the network has some of that name and shape.

        Args:
            weights: by their names; nothing has been trained yet.

        Returns:
            The names of those that stay random.
        """
        own = self.network.state_dict()
        fit = {
            name: value for name, value in weights.items() if name in own and value.shape == own[name].shape
        }
        self.network.load_state_dict(own | fit)
        if self._averaged is not None:
            self._averaged.load_state_dict(self.network.state_dict())
        return [name for name in own if name not in fit]

    def step(self, epoch: int, index: int) -> None:
        """Train on one batch; epoch and index are counted from 0."""
        step = epoch * self.steps + index
        if step != self._next or index == 0:
            self._loop.begin(epoch, index)
        self.network.train()
        torch.manual_seed(_mix(self._config.seed, step))  # of drop-path
        self._loop.feed()
        self._step()
        if self._average is not None:
            self._average.update(step)
        self._next = step + 1

    def close(self) -> None:
        """End the processes that decode streamed images."""
        self._batches.close()

    def loss_so_far(self, steps: int) -> float:
        """The mean loss of the epoch's first steps in this process; waits for the device."""
        return float(self.losses) / steps

    def epoch_loss(self) -> float:
        """The mean loss of a whole epoch over all processes."""
        return float(self._group.sum(self.losses)) / (self.steps * self._group.size)

    def evaluate(self) -> tuple[Evaluation, Evaluation | None]:
        """What the weights, and their average, make of all validation images."""
        average = None if self._averaged is None else self._evaluated(self._averaged)
        return self._evaluated(self.network), average

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a step changes, by name."""
        parts = {"network": self.network.state_dict(), "optimizer": self.stepper.state()}
        if self._averaged is not None:
            parts["average"] = self._averaged.state_dict()
        named = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
        return named | {"losses": self.losses}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint; loss scaling, where it was taken in another precision, begins anew.

        Raises:
            CheckpointError: it is of another training; nothing has changed then.
        """
        tensors, place = self._checked(checkpoint), checkpoint.place
        self.network.load_state_dict(_part(tensors, "network"))
        if self._averaged is not None:
            self._averaged.load_state_dict(_part(tensors, "average"))
        self.stepper.restore(_part(tensors, "optimizer"))
        self._loop.begin(place.epoch, place.index)
        self.losses.copy_(tensors["losses"])
        self._next = place.epoch * self.steps + place.index

    def _checked(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """A checkpoint's tensors: their names, shapes and types are those that this training has."""
        place, epochs = checkpoint.place, self._config.epochs
        if place.epoch > epochs or place.index > (self.steps if place.epoch < epochs else 0):
            raise CheckpointError(
                f"{checkpoint.path}: after epoch {place.epoch} and {place.index} steps, allowed are "
                f"{epochs} epochs of {self.steps} steps"
            )
        expected, found = self.tensors(), checkpoint.tensors
        if checkpoint.machine is not None and checkpoint.machine.precision != self._config.precision:
            expected, found = _without_scaling(expected), _without_scaling(found)
        for name in sorted(expected.keys() | found.keys()):
            has, wanted = _described(found.get(name)), _described(expected.get(name))
            if has != wanted:
                raise CheckpointError(
                    f"{checkpoint.path}: the checkpoint is of another network: tensor {name} is {has}, "
                    f"expected {wanted}"
                )
        return found

    def is_finite(self) -> bool:
        """Whether every weight is a finite number."""
        return self._loop.is_finite()

    def _evaluated(self, network: nn.Module) -> Evaluation:
        found = evaluate(network, self._validation, self._type)
        device = self.losses.device
        right, of = self._group.sum(torch.tensor([found.right, found.of], device=device)).tolist()
        loss = self._group.sum(torch.tensor(found.loss * found.images, dtype=torch.float64, device=device))
        return Evaluation(tuple(right), tuple(of), float(loss) / sum(of))


def _share(data: DataSet, group: Group) -> DataSet:
    """The data set with this process's share of the validation images."""
    mine = slice(group.rank, None, group.size)
    return replace(
        data, validation_images=data.validation_images[mine], validation_labels=data.validation_labels[mine]
    )


def _part(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(f"{part}."): value for name, value in tensors.items() if name.startswith(f"{part}.")
    }


def _without_scaling(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if not name.startswith(f"optimizer.{SCALER}.")}


def _described(tensor: Tensor | None) -> str:
    if tensor is None:
        return "missing"
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _mix(seed: int, step: int) -> int:
    """A generator's seed for a step: 32 bits, all that a CPU's generator looks at."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {step}".encode(), digest_size=4).digest())
