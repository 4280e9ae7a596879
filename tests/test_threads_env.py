"""How threads wait is said by commands, before torch is imported, and by nothing else."""

import os
import subprocess
import sys

import pytest

from pnas_fast.cli.threads_env import SPINS, wait_briefly

COMMAND = """
import os, runpy, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("torch meets", os.environ.get("GOMP_SPINCOUNT"))
            os._exit(0)

sys.meta_path.insert(0, Watch())
sys.argv = ["command", "--help"]
try:
    runpy.run_module(MODULE, run_name="__main__")
except SystemExit:
    pass
print("torch meets", os.environ.get("GOMP_SPINCOUNT"))
"""


def run(program: str, **environment: str) -> str:
    said = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    own = {name: value for name, value in os.environ.items() if name not in said}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=own | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", ["pnas_fast.search", "pnas_fast.train"])
def test_commands_say_it_before_torch_is_imported(module: str) -> None:
    assert f"torch meets {SPINS}" in run(COMMAND.replace("MODULE", repr(module)))


@pytest.mark.parametrize(("name", "value"), [("GOMP_SPINCOUNT", "7"), ("OMP_WAIT_POLICY", "active")])
def test_what_a_person_said_stays(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv(name, value)
    before = dict(os.environ)
    wait_briefly()
    assert dict(os.environ) == before


def test_importing_says_nothing() -> None:
    program = """
import os, sys
import pnas_fast.cli.threads_env
print("torch" in sys.modules, end=" ")
import pnas_fast.train.__main__, pnas_fast.search.__main__
print(os.environ.get("GOMP_SPINCOUNT"))
"""
    assert run(program).strip() == "False None"
