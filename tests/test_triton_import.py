"""Triton is imported when its backend is first used, and its absence is one clear line."""

import subprocess
import sys

import pytest

from pnas_fast.kernels import BackendError, resolve_backend, triton


def test_importing_the_kernels_imports_no_triton() -> None:
    code = "import sys, pnas_fast.kernels; print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_triton_the_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"^backend triton: the package triton is not installed; pip"):
        resolve_backend("triton", "cuda")


def test_triton_serves_cuda_only() -> None:
    assert resolve_backend("triton", "cuda") == "triton"
    with pytest.raises(BackendError, match="'triton' on cpu: allowed are auto"):
        resolve_backend("triton", "cpu")
