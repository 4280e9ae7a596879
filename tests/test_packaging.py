"""A wheel built from this checkout works from any folder, and installs no name but pnas_fast."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*PIP, "wheel", *options, str(ROOT)], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_one_package_whole(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"pnas_fast"}
    sources = [
        path for path in (ROOT / "pnas_fast").rglob("*") if path.suffix in {".py", ".j2", ".css", ".npz"}
    ]
    sources += [*(ROOT / "pnas_fast" / "kernels").glob("*.py"), *(ROOT / "pnas_fast" / "export").glob("*.py")]
    assert {path.relative_to(ROOT).as_posix() for path in sources} <= set(names)
    assert "pnas_fast/py.typed" in names


def test_the_installed_search_runs_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    subprocess.run([*PIP, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    environment = os.environ | {"PYTHONPATH": str(site)}
    where = [sys.executable, "-c", "import pnas_fast.kernels; print(pnas_fast.kernels.__file__)"]
    found = subprocess.run(where, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()).is_relative_to(site)
    options = (
        "--operations identity --blocks 2 --beam 2 --epochs 1 --train-images 64 --device cpu --preset quick"
    )
    command = [sys.executable, "-m", "pnas_fast.search", *options.split(" "), "--out", "run"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").is_file()
