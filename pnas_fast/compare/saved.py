"""What a comparison is, kept in its folder, so that it goes on as what it was."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from pnas_fast.cli.options import ConfigError
from pnas_fast.compare.plan import Plan
from pnas_fast.files import write_text
from pnas_fast.runs.config import RunConfig
from pnas_fast.runs.disk import writing
from pnas_fast.runs.folder import RunError
from pnas_fast.search.config import SearchConfig

FILE = "comparison.json"
PAGE = "compare.html"


class _Saved(msgspec.Struct, forbid_unknown_fields=True):
    repeats: int
    independent: bool
    evaluator: str
    strategies: dict[str, dict[str, str | int | float | bool | list[str]]]


def saved_plan(folder: Path) -> Plan | None:
    """The plan of the comparison in a folder; None where there is none.

    Raises:
        RunError: the folder is something else.
        ConfigError: the plan cannot be read.
    """
    saved = _read(folder)
    if saved is not None:
        try:
            configs = {
                name: SearchConfig.from_values(values).resolved() for name, values in saved.strategies.items()
            }
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise ConfigError(f"{folder / FILE}: not the plan of a comparison ({error})") from error
        return Plan(configs, saved.repeats, saved.independent)
    check_folder(folder)
    return None


def check_folder(folder: Path) -> None:
    """Raise `RunError` where a folder holds anything but a comparison."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"--out {folder}: is a file, expected a comparison's folder or a new name")
    if folder.is_dir() and not any((folder / name).exists() for name in (FILE, PAGE)):
        left = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
        if left:
            raise RunError(
                f"--out {folder}: holds other files and no {FILE}, expected a comparison or a new name"
            )


def settle_plan(folder: Path, plan: Plan, evaluator: str) -> None:
    """Write a new comparison's plan, or make sure that it is the one that is there.

    Args:
        folder: of the comparison.
        plan: that is to be carried out.
        evaluator: the identity of its evaluator: a table's content, say.

    Raises:
        RunError: another one is there; the message says what differs.
    """
    saved, before = _read(folder), saved_plan(folder)
    if saved is None or before is None:
        values = {name: config.values() for name, config in plan.configs.items()}
        text = json.dumps(
            {
                "repeats": plan.repeats,
                "independent": plan.independent,
                "evaluator": evaluator,
                "strategies": values,
            },
            indent=2,
        )
        with writing(folder / FILE):
            write_text(folder / FILE, text + "\n")
        return
    different = _differences(before, plan)
    if not different and saved.evaluator != evaluator:
        different = ["what the evaluator answers"]
    if different:
        raise RunError(
            f"--out {folder}: the comparison there is another one ({'; '.join(different)}); "
            "continue it as it was, or choose another --out"
        )


def _differences(before: Plan, now: Plan) -> list[str]:
    found = []
    if list(before.configs) != list(now.configs):
        found.append(f"--strategies {','.join(before.configs)} -> {','.join(now.configs)}")
    if before.repeats != now.repeats:
        found.append(f"--repeats {before.repeats} -> {now.repeats}")
    if before.independent != now.independent:
        found.append(f"--independent {_yes(before.independent)} -> {_yes(now.independent)}")
    for name in before.configs.keys() & now.configs.keys():
        # What a search may raise would be another comparison.
        found += RunConfig.difference(before.configs[name], now.configs[name])
    return list(dict.fromkeys(found))


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _read(folder: Path) -> _Saved | None:
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        # By Python's reader, since names of folders need not be UTF-8.
        return msgspec.convert(json.loads(path.read_text(encoding="utf-8")), type=_Saved)
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise ConfigError(f"{path}: not the plan of a comparison ({error})") from error
