"""All that this project uses of PyTorch beyond its documented names; `tests/test_internals.py` tells when it
changes.
"""

from __future__ import annotations

from typing import Any

import torch

# The public name, torch.compiler.disable, imports the compiler at once, which takes a second.
from torch._compile import _disable_dynamo as between_graphs
from torch.optim.sgd import sgd
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = [
    "TorchDispatchMode",
    "between_graphs",
    "current_pass",
    "foreach_add",
    "foreach_add_",
    "foreach_addcdiv_",
    "foreach_addcmul_",
    "foreach_copy_",
    "foreach_lerp_",
    "foreach_mul",
    "foreach_mul_",
    "foreach_sqrt",
    "foreach_sub_",
    "sgd",
    "writes",
]

foreach_add = torch._foreach_add
foreach_add_ = torch._foreach_add_
foreach_addcdiv_ = torch._foreach_addcdiv_
foreach_addcmul_ = torch._foreach_addcmul_
foreach_copy_ = torch._foreach_copy_
foreach_lerp_ = torch._foreach_lerp_
foreach_mul = torch._foreach_mul
foreach_mul_ = torch._foreach_mul_
foreach_sqrt = torch._foreach_sqrt
foreach_sub_ = torch._foreach_sub_


def current_pass() -> int:
    """A number for the run of backward that this thread is in, -1 outside of any."""
    number: int = torch._C._current_graph_task_id()
    return number


def writes(operator: Any) -> bool:
    """Whether an operator (`torch.ops`) writes to its arguments."""
    mutable: bool = operator._schema.is_mutable
    return mutable
