"""The tensor-core prototype of a separable half, thread by thread on a CPU, and how it is launched."""

import re
import subprocess
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch import nn

import gpu_cases
import gpu_driver
import gpu_parts
import gpu_prototype
from gpu_prototype import LIMIT, SOURCES


class Row(NamedTuple):
    kernel: str
    ahead: str
    omitted: str
    name: str
    error: float


def compiled(folder: Path, taps: int, warps: int, source: str = "check.cpp", *options: str) -> Path:
    warnings = ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")
    out = folder / f"{source}-{taps}-{warps}"
    macros = (f"-DTAPS={taps}", f"-DWARPS={warps}")
    given = ("-std=c++17", "-O2", *warnings, *macros, *options, "-o", str(out), str(SOURCES / source))
    subprocess.run(["g++", *given], check=True)
    return out


def results(program: Path, *arguments: str) -> list[Row]:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    fields = [line.split("\t") for line in done.stdout.splitlines()]
    return [Row(kernel, ahead, omitted, name, float(error)) for kernel, ahead, omitted, name, error in fields]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("prototype"), 3, 8)


def assert_right(rows: list[Row], kernels: set[str]) -> None:
    assert {(row.kernel, row.ahead) for row in rows} == {(k, o) for k in kernels for o in ("first", "last")}
    # NaN, too, is not.
    assert [row for row in rows if not row.error <= LIMIT] == []


def test_an_image_gives_what_fp64_gives(program: Path) -> None:
    rows = results(program)
    assert_right(rows, {"forward", "backward"})
    gradients = {"into, written", "into, added to", "d_affine", "d_depthwise", "d_pointwise"}
    assert {row.name for row in rows} == {"out", "sums", *gradients}


@pytest.mark.slow
def test_more_taps_do(tmp_path: Path) -> None:
    assert_right(results(compiled(tmp_path, 7, 8)), {"forward", "backward"})


@pytest.mark.slow
def test_more_warps_do_forward(tmp_path: Path) -> None:
    assert_right(results(compiled(tmp_path, 5, 24)), {"forward"})


@pytest.mark.slow
def test_no_barrier_can_be_left_out(program: Path) -> None:
    worst: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for row in results(program, "leave out"):
        worst[row.kernel, row.omitted].append(row.error <= LIMIT)
    assert {key for key, good in worst.items() if all(good)} == {("forward", "-"), ("backward", "-")}
    assert len(worst) == 2 + 5 + 15


def test_nothing_is_included_that_comes_with_a_compiler() -> None:
    """NVRTC knows no header but those that it is given."""
    for path in (*SOURCES.glob("*.cu"), *SOURCES.glob("*.cuh")):
        for name in re.findall(r"#include (.*)", path.read_text(encoding="utf-8")):
            assert (SOURCES / name.strip('"')).is_file(), f"{path.name}: {name}"


def without_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_parts, "card_numbers", lambda: (132, 90))
    monkeypatch.setattr(gpu_cases, "DEVICE", "cpu")


def test_a_compiler_that_is_missing_or_fails_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpu_driver, "nvrtc_library", lambda: str(tmp_path / "libnvrtc.so"))
    without_card(monkeypatch)
    with pytest.raises(RuntimeError, match=r"^nvcc: not installed; NVRTC: .*libnvrtc\.so: cannot open"):
        gpu_prototype.build()


def test_what_is_expected_is_what_pytorch_makes_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    without_card(monkeypatch)
    torch.manual_seed(1)
    problem = gpu_prototype.new_problem(5, 2)
    problem.out.normal_()
    z, affine, depthwise, pointwise, g, norm, result = (x.double() for x in problem[:7])
    z, affine = z.permute(0, 3, 1, 2).requires_grad_(), affine.requires_grad_()
    taps = depthwise.permute(2, 0, 1)[:, None].requires_grad_()
    weights = pointwise[:, :, None, None].requires_grad_()
    scale, shift = affine[:, :, None, None]
    d = nn.functional.conv2d(torch.relu(z * scale + shift), taps, padding=2, groups=24)
    out = nn.functional.conv2d(d, weights)
    upstream = (g + norm[0] + norm[1] * result).permute(0, 3, 1, 2)
    into, *gradients = torch.autograd.grad(out, (z, affine, taps, weights), upstream)
    right = gpu_prototype.expected(problem)
    torch.testing.assert_close(right["out"], out.detach().permute(0, 2, 3, 1))
    torch.testing.assert_close(right["sums"][:, 0], out.detach().sum((2, 3)))
    torch.testing.assert_close(right["sums"][:, 1], out.detach().square().sum((2, 3)))
    torch.testing.assert_close(right["into"], into.permute(0, 2, 3, 1))
    torch.testing.assert_close(right["d_affine"], gradients[0])
    torch.testing.assert_close(right["d_depthwise"], gradients[1][:, 0].permute(1, 2, 0))
    torch.testing.assert_close(right["d_pointwise"], gradients[2][:, :, 0, 0])


@pytest.mark.slow
def test_launches_hand_over_what_kernels_take(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the calls of a card's driver, to one that runs blocks on the CPU."""
    without_card(monkeypatch)
    driver = compiled(tmp_path, 3, 8, "driver.cpp", "-shared", "-fPIC")
    kernels = tuple(gpu_prototype.Kernel(direction, 3, 8) for direction in ("forward", "backward"))
    stream = SimpleNamespace(cuda_stream=0)
    for place, name, value in (
        (gpu_driver, "DRIVER", str(driver)), (gpu_prototype, "KERNELS", kernels),
        (gpu_prototype, "WARPS", (8,)), (torch.cuda, "current_stream", lambda: stream),
        (gpu_driver, "by_nvcc", lambda *_: b"\x7fELF\0"),
    ):  # fmt: skip
        monkeypatch.setattr(place, name, value)
    prototype = gpu_prototype.build()
    assert prototype.facts["forward 3×3, 8 warps"]["shared bytes"] > 100_000
    errors = gpu_prototype.check(prototype, 3, 2)
    assert {name for name, error in errors.items() if not error <= LIMIT} == set()
    assert len(errors) == 7
