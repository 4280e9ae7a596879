"""Names of PyTorch and Triton that neither documents: an upgrade fails here first, and says which changed."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pnas_fast.kernels import _torch_internals as internals


def test_a_run_of_backward_has_a_number_of_its_own() -> None:
    seen: list[int] = []
    x = torch.ones(1, requires_grad=True)
    for _ in range(2):
        y = x * 2
        y.register_hook(lambda g: seen.append(internals.current_pass()))  # type: ignore[no-untyped-call]
        y.sum().backward()  # type: ignore[no-untyped-call]
    first, second = seen
    assert internals.current_pass() == -1
    assert -1 not in seen
    assert first != second


def test_a_function_between_graphs_is_called_as_it_is() -> None:
    function = internals.between_graphs(lambda a, *, b: (a, b))
    assert function(1, b=2) == (1, 2)


def test_a_mode_sees_operators_and_knows_which_write() -> None:
    seen: dict[str, bool] = {}

    class Mode(internals.TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, operator: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: Any = None
        ) -> Any:
            seen[str(operator)] = internals.writes(operator)
            return operator(*arguments, **(keywords or {}))

    assert hasattr(internals.TorchDispatchMode, "_should_skip_dynamo")
    with Mode():  # type: ignore[no-untyped-call]
        torch.ones(2).add_(1.0).relu()
    assert seen["aten.add_.Tensor"]
    assert not seen["aten.relu.default"]


def test_operations_on_lists() -> None:
    def lists() -> tuple[list[Tensor], list[Tensor]]:
        return [torch.tensor([4.0])], [torch.tensor([9.0])]

    (a,), (b,) = lists()
    assert internals.foreach_add([a], [b], alpha=2)[0] == 22
    assert internals.foreach_mul([a], torch.tensor(0.5))[0] == 2
    assert internals.foreach_sqrt([a])[0] == 2
    for name, arguments, keywords, expected in (
        ("foreach_add_", (1.0,), {}, 5),
        ("foreach_mul_", (0.5,), {}, 2),
        ("foreach_sub_", ([b],), {}, -5),
        ("foreach_copy_", ([b],), {}, 9),
        ("foreach_lerp_", ([b], 0.2), {}, 5),
        ("foreach_addcmul_", ([b], [b]), {"value": 2}, 166),
        ("foreach_addcdiv_", ([b], [b]), {}, 5),
    ):
        own, _ = lists()
        getattr(internals, name)(own, *arguments, **keywords)
        assert own[0] == expected, name


def test_the_fused_update_takes_a_rate_on_the_device() -> None:
    parameter, memory = nn.Parameter(torch.ones(1)), torch.zeros(1)
    rate: Any = torch.tensor(0.1)
    with torch.no_grad():
        internals.sgd(
            [parameter], [torch.ones(1)], [memory], fused=True, grad_scale=None, found_inf=None,
            weight_decay=0.0, momentum=0.9, lr=rate, dampening=0.0, nesterov=True,
            maximize=False,
        )  # fmt: skip
    torch.testing.assert_close(parameter.detach(), torch.tensor([1 - 0.1 * 1.9]))
    assert memory == 1


def test_the_loss_scaling_asks_by_this_name_who_can_leave_a_step_out() -> None:
    assert '"_step_supports_amp_scaling"' in inspect.getsource(torch.amp.GradScaler.step)


TRITON = """
from inspect import signature
import torch
import triton
from triton.language import constexpr
from pnas_fast.kernels.triton import _triton_internals as internals
from pnas_fast.kernels.triton.augment import augment_kernel

assert isinstance(augment_kernel, internals.JITFunction)
assert len(internals.hash_of(augment_kernel)) >= 32
names = [parameter.name for parameter in augment_kernel.params]
assert names == list(signature(augment_kernel.fn).parameters) == list(augment_kernel.arg_names)
assert [p.name for p in augment_kernel.params if p.is_constexpr] == ["C"]
assert "height" in [p.name for p in augment_kernel.params if p.do_not_specialize]
assert augment_kernel.module == "pnas_fast.kernels.triton.augment"
stand_in = internals.MockTensor(torch.float32)
assert stand_in.data_ptr() % 16 == 0
assert stand_in.dtype == torch.float32
before = internals.driver._active
arguments = [internals.MockTensor(t) for t in (torch.uint8, torch.int32, torch.float32, torch.float32)]
built = internals.build_elsewhere(augment_kernel, [*arguments, 17, 16, 16, 2, 4, 3], {"num_warps": 4}, 90)
assert built.asm["cubin"]
assert built.metadata.shared >= 0
assert not augment_kernel.device_caches
assert internals.driver._active is before
assert internals.cuobjdump().exists()
assert hasattr(triton.knobs.compilation, "listener")
"""


def test_triton_compiles_for_a_card_that_is_elsewhere(tmp_path: Path) -> None:
    """In a process of its own, for Triton's interpreter serves the tests."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", TRITON], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_else_uses_such_names() -> None:
    """Outside of the two files: no private name of PyTorch or Triton, and none of Triton's runtime."""
    root = Path(__file__).parent.parent
    private = re.compile(
        r"(?<![.\w])(torch|triton)(\.\w+)*\._[a-z]|^from (torch|triton)\S* import _"
        r"|^from triton\.(runtime|back)"
    )
    files = [*(root / "kernels").rglob("*.py"), *(root / "pnas_fast").rglob("*.py")]
    found = {
        f"{file.relative_to(root)}: {line.strip()}"
        for file in files
        if not file.name.endswith("_internals.py")
        for line in file.read_text(encoding="utf-8").splitlines()
        if private.search(line)
    }
    assert not found
