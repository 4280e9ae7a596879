"""Batch norm over the images of all processes, so that they train as one with the whole batch would.

PyTorch's own `torch.nn.SyncBatchNorm` is for its own operations on GPUs; this one is for every backend.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

_AXES = (0, 2, 3)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` whose batch is that of all processes together.

    Every process must have as many pixels as every other, and take the same steps. Parameters, running
    statistics (the variance unbiased) and evaluation are those of the plain norm. The mean over the processes
    of its weight's and bias's gradients is the gradient of the mean loss, as it is for other parameters.
    """

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> SharedBatchNorm2d:
        """A plain norm's replacement, with its very parameters and statistics."""
        shared = cls(norm.num_features, norm.eps, norm.momentum)
        shared.weight, shared.bias = norm.weight, norm.bias
        shared.running_mean, shared.running_var = norm.running_mean, norm.running_var
        shared.num_batches_tracked = norm.num_batches_tracked
        shared.train(norm.training)
        return shared

    def forward(self, z: Tensor) -> Tensor:
        """(N, C, H, W), normalised: the eager backend's way."""
        if not self.training:
            return super().forward(z)
        out, mean, variance = _Normalise.apply(z, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        count = z.numel() // z.shape[1] * dist.get_world_size()
        self._move(mean - self._mean, variance * (count / (count - 1)) - self._variance)
        normalised: Tensor = out
        return normalised

    def share(self, statistics: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
        """The fused backends' way: from a norm of this process's batch to that of all processes.

        Running statistics, which this process's batch has moved already, are put right.

        Args:
            statistics: (2, C), mean and 1 / std of this process's batch.
            pixels: it has in a channel.

        Returns:
            Affine (2, C), scale and shift, and statistics (2, C), of the batch of all processes.
        """
        mean, deviation = statistics
        variance = deviation.reciprocal().square() - self.eps
        whole_mean, whole_variance = _combine(mean, variance)
        count = pixels * dist.get_world_size()
        unbiased = whole_variance * (count / (count - 1)) - variance * (pixels / (pixels - 1))
        self._move(whole_mean - mean, unbiased)
        deviation = torch.rsqrt(whole_variance + self.eps)
        scale = self.weight * deviation
        affine = torch.stack([scale, self.bias - whole_mean * scale])
        return affine, torch.stack([whole_mean, deviation])

    @staticmethod
    def share_gradient(d_affine: Tensor) -> Tensor:
        """The mean over the processes of the gradients that reached scale and shift.

        What statistics add to the gradient of z is proportional to d_affine / pixels, so the mean stands for
        the sum over as many times the pixels.
        """
        d_affine = d_affine.clone()
        dist.all_reduce(d_affine)
        return d_affine.div_(dist.get_world_size())

    @property
    def _mean(self) -> Tensor:
        assert self.running_mean is not None
        return self.running_mean

    @property
    def _variance(self) -> Tensor:
        assert self.running_var is not None
        return self.running_var

    @torch.no_grad()
    def _move(self, mean: Tensor, variance: Tensor) -> None:
        assert self.momentum is not None
        self._mean.add_(mean, alpha=self.momentum)
        self._variance.add_(variance, alpha=self.momentum)


def share_batch_norms(network: nn.Module) -> None:
    """Replace every batch norm of a network by one that all processes share."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, SharedBatchNorm2d.of(child))


class _Normalise(Function):
    """``weight * (z - mean) / sqrt(variance + eps) + bias``, mean and variance over all processes."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        # Half precision is widened, as PyTorch's own batch norm does.
        variance, mean = torch.var_mean(z.to(weight.dtype), _AXES, correction=0)
        mean, variance = _combine(mean, variance)
        deviation = torch.rsqrt(variance + eps)
        scale = weight * deviation
        out = z * _wide(scale) + _wide(bias - mean * scale)
        ctx.save_for_backward(z, weight, mean, deviation)
        ctx.mark_non_differentiable(mean, variance)
        return out.to(z.dtype), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        z, weight, mean, deviation = ctx.saved_tensors
        wide = g.to(weight.dtype)
        normal = (z.to(weight.dtype) - _wide(mean)) * _wide(deviation)
        d_bias, d_weight = wide.sum(_AXES), (wide * normal).sum(_AXES)
        sums = torch.stack([d_bias, d_weight])
        dist.all_reduce(sums)
        sums /= z.numel() // z.shape[1] * dist.get_world_size()
        dz = (wide - _wide(sums[0]) - normal * _wide(sums[1])) * _wide(weight * deviation)
        return dz.to(z.dtype), d_weight, d_bias, None


def _combine(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over all processes; no large number is subtracted from another."""
    own = torch.stack([mean, variance])
    every = own.new_empty(dist.get_world_size(), *own.shape)
    dist.all_gather(list(every), own)
    means, variances = every.unbind(1)
    mean = means.mean(0)
    return mean, (variances + (means - mean).square()).mean(0)


def _wide(channels: Tensor) -> Tensor:
    return channels[:, None, None]
