"""New tensors full of NaN, so that what a kernel leaves unwritten shows."""

from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor


def poison_new_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every floating-point tensor that is made has NaN everywhere, until the patch is undone."""
    # The graph compiler lists PyTorch's functions when it is first asked for one: not these, then.
    torch._dynamo.trace_rules.lookup(torch.empty)

    def poison(make: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Tensor:
            tensor: Tensor = make(*args, **kwargs)
            return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

        return call

    monkeypatch.setattr(torch, "empty_like", poison(torch.empty_like))
    monkeypatch.setattr(torch, "empty", poison(torch.empty))
    monkeypatch.setattr(Tensor, "new_empty", poison(Tensor.new_empty))
