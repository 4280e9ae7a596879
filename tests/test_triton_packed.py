"""Kernels packed for another machine: what is unpacked is what a launch looks for; strangers are refused."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import triton

from pnas_fast.kernel_tools import packed, warm
from pnas_fast.kernel_tools.packed import CODE, MANIFEST, PackError, this_python, unpack
from test_triton_warm import run

SMALL = (
    *("-m", "pnas_fast.kernel_tools.warm", "--filters", "4", "--repeats", "1", "--blocks", "1"),
    *("--image", "8x8x1", "--operations", "max_pool3x3", "--processes", "1"),
)

UNPACKED = """
import json, sys, zipfile
from pathlib import Path
from pnas_fast.kernel_tools import warm
from pnas_fast.kernel_tools.packed import CODE, MANIFEST, PackError, unpack
from pnas_fast.kernels.triton.aot import variant_from

file = Path(sys.argv[1])
with zipfile.ZipFile(file) as archive:
    text, code = archive.read(MANIFEST), archive.read(CODE)

def refused(change):
    manifest = json.loads(text)
    change(manifest["kernels"][1])
    with zipfile.ZipFile(file.with_name("other.zip"), "w") as archive:
        archive.writestr(MANIFEST, json.dumps(manifest))
        archive.writestr(CODE, code)
    try:
        print(unpack(file.with_name("other.zip"), []))
    except PackError as error:
        print(str(error).replace(str(file.parent), ""))

# Under a name that sources here do not give, and one that its sources cannot make.
refused(lambda kernel: kernel.update(name="0" * 64))
refused(lambda kernel: kernel["variant"].update(constants={}))
print(*unpack(file, []))
print(*unpack(file, [80, 90]))
variants = [variant_from(kernel["variant"]) for kernel in json.loads(text)["kernels"]]
print(*warm.compile_all(variants, 90, 1))
print(warm.main(["--unpack", str(file), "--arch", "sm_80"]))
print(warm.main(["--unpack", str(file)]))
"""


@pytest.mark.slow
def test_what_is_unpacked_need_not_be_compiled(tmp_path: Path) -> None:
    file, first, second = (tmp_path / name for name in ("kernels.zip", "first", "second"))
    done = run(*SMALL, "--pack", str(file), "--most", "3", TRITON_CACHE_DIR=str(first))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{file}: 3 kernels in 0.")
    assert done.stdout.endswith(
        f"sm_90, Triton {triton.__version__}, Python {this_python()}; 3 were compiled for it\n"
    )
    done = run("-c", UNPACKED, str(file), TRITON_CACHE_DIR=str(second))
    others = "/other.zip: 1 of 3 kernels are of other sources, compilers or settings than here"
    assert done.stdout.splitlines() == [
        *(others, others, "3 0", "0 3", "0 3 []", "2"),
        f"{file}: 3 kernels; 0 would have had to be compiled and are now in {second}, 3 were there",
        "0",
    ], done.stderr
    assert done.stderr.endswith(f"error: {file}: packed for GPUs of sm_90, here is sm_80\n")
    # Its paths are those of the machine that unpacks.
    groups = [path.read_text("utf-8") for path in second.glob("*/__grp__*")]
    assert len(groups) == 3
    assert str(first) not in "".join(groups)


def write(path: Path, manifest: Any, code: bytes = b"") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr(MANIFEST, json.dumps(manifest))
        archive.writestr(CODE, code)
    return path


INSTALLATION = ["3.7aa", "bb", "cc"]


@pytest.fixture
def manifest(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Of no kernels, for here."""
    monkeypatch.setattr(packed, "installation", lambda: list(INSTALLATION))
    return {
        "format": 1,
        "triton": triton.__version__,
        "installation": list(INSTALLATION),
        "python": this_python(),
        "packed_by": this_python(),
        "architecture": 90,
        "kernels": [],
    }


def test_another_python_of_the_same_triton_may_pack(manifest: dict[str, Any], tmp_path: Path) -> None:
    """Its library differs, and only that."""
    change = {"packed_by": "3.99", "installation": ["3.7aa", "xx", "cc"]}
    assert unpack(write(tmp_path / "a.zip", manifest | change), [80, 90]) == (0, 0)


KERNEL: dict[str, Any] = {"variant": {}, "name": "0" * 64, "file": "a", "metadata": "{}", "size": 0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "packed for format 2, here is 1"),
        ({"triton": "3.1.4"}, f"packed for Triton 3.1.4, here is {triton.__version__}"),
        ({"python": "3.99"}, f"packed for Python 3.99, here is {this_python()}"),
        ({"architecture": 80}, "packed for GPUs of sm_80, here is sm_90"),
        ({"installation": ["3.7aa", "xx", "cc"]}, "here is one that differs in 1 parts"),
        ({"installation": ["3.7aa"]}, "packed for another build of Triton"),
        ({"installation": ["x", "y", "cc"], "packed_by": "3.99"}, "here is one that differs in 2 parts"),
        ({"kernels": 5}, "no packed kernels, or damaged: Expected `array`, got `int`"),
        ({"more": 5}, "no packed kernels, or damaged: Object contains unknown field `more`"),
        ({"kernels": [KERNEL | {"size": 7}]}, "damaged: 0 bytes of machine code, expected 7"),
        ({"kernels": [KERNEL | {"size": -7}]}, "damaged: 0 bytes of machine code, expected -7"),
        ({"kernels": [KERNEL]}, "no kernel of this package: 'None' in 'None'"),
        ({"kernels": [KERNEL | {"variant": {"module": "os", "kernel": "abort"}}]}, "'abort' in 'os'"),
        (
            {"kernels": [KERNEL | {"variant": {"module": f"{packed.KERNELS}tiles", "kernel": "tile"}}]},
            "no kernel of this package: 'tile' in 'pnas_fast.kernels.triton.tiles'",
        ),
        ({"kernels": [KERNEL | {"file": "../a"}]}, "no kernel of this package"),
    ],
)
def test_strangers_are_refused_in_one_line(
    change: dict[str, Any], said: str, manifest: dict[str, Any], tmp_path: Path
) -> None:
    path = write(tmp_path / "a.zip", manifest | change)
    with pytest.raises(PackError) as refused:
        unpack(path, [90])
    assert str(refused.value).startswith(f"{path}: ")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_no_such_file_is_refused(manifest: dict[str, Any], tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.zip", manifest, b"").read_bytes()
    path = tmp_path / "a.zip"
    damaged = bytearray(whole)
    damaged[60] ^= 255
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    for content in (b"", b"words", whole[:-30], bytes(damaged), (tmp_path / "empty.zip").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(PackError, match=r"no packed kernels, or damaged: [^\n]+$"):
            unpack(path, [])
    with pytest.raises(FileNotFoundError):
        unpack(tmp_path / "none.zip", [])


def test_a_file_that_is_too_large_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "installation", lambda: list(INSTALLATION))
    monkeypatch.setattr(packed, "MOST_BYTES", 100)
    with pytest.raises(PackError, match=r"a\.zip: \d+ bytes, allowed are 100: pack fewer kernels"):
        packed.pack(tmp_path / "a.zip", [], 90, "3.12")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--pack a.zip --unpack b.zip", "argument --unpack: not allowed with argument --pack"),
        ("--unpack none.zip", "none.zip: No such file or directory"),
        ("--pack nowhere/a.zip", "--pack nowhere/a.zip: no folder nowhere"),
        (
            "--pack a.zip --python three",
            "argument --python: 'three', allowed is a version of Python, say 3.12",
        ),
        ("--arch sm_90 --python 3.12", "--python is an option of --pack"),
        ("--arch sm_90 --most 3", "--most is an option of --pack"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    line: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(warm, "INTERPRETED", False)
    try:
        status = warm.main(line.split())
    except SystemExit as stop:
        status = int(stop.code or 0)
    output, errors = capsys.readouterr()
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert message in errors
