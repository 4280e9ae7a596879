"""The checks of the GPU benchmark, on the CPU: a script that a card sees rarely must not fail for a slip."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

SCRIPT = Path(__file__).parent.parent / "bench" / "gpu.py"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "DEVICE", "cpu")
    return module


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_correct_operations_pass(gpu: ModuleType, dtype: torch.dtype) -> None:
    operations = [gpu.separable(8, 4, 3, 2), gpu.dense(8, 6, 4, (1, 7), (1, 1)), gpu.factorized(8, 6, 4)]
    operations += [gpu.add(8, 4, "max", None)]
    for case in operations:
        # The interpreter truncates to bf16 where cards round.
        assert gpu.check(case, dtype, 2) <= (1 if dtype == torch.float32 else 2) * gpu.LIMITS[dtype]


def test_a_wrong_result_and_one_that_changes_do_not_pass(gpu: ModuleType) -> None:
    case = gpu.dense(8, 6, 4, (1, 1), (1, 1))
    factor = iter([1.0, 2.0, 1.0, 1.0])

    def run(backend: object, x: list[torch.Tensor], w: list[torch.Tensor], norm: object) -> object:
        eager = x[0].dtype == torch.float64
        return case.run(backend, x, [w[0] if eager else w[0] * next(factor)], None)

    assert gpu.check(case._replace(run=run, filters=0), torch.float32, 2) == float("inf")
    wrong = case._replace(run=lambda b, x, w, norm: case.run(b, x, [w[0] * (b.name == "eager")], norm))
    assert not gpu.check(wrong, torch.float32, 1) <= gpu.LIMITS[torch.float32]


def test_without_a_card_it_says_so(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    assert gpu.main([]) == 2
    assert "needs a CUDA card" in capsys.readouterr().out
