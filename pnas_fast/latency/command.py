"""What ``python -m pnas_fast.latency`` does once its command line is read."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import msgspec
from rich.console import Console

from pnas_fast.cli.commands import counting_bar, say
from pnas_fast.files import replacing
from pnas_fast.foreign import printable
from pnas_fast.latency.folder import write_folder
from pnas_fast.latency.measuring import Way, time_cells
from pnas_fast.latency.networks import choose_cells
from pnas_fast.latency.table import LARGEST_ERROR, device_file, read_times
from pnas_fast.latency.time_networks import SCRIPT, TIMES, disturbed
from pnas_fast.objectives.device import DeviceError, DeviceFile, Times


def measure(options: argparse.Namespace, console: Console) -> None:
    """Time networks here, and write what comes of it.

    Raises:
        DeviceError: they cannot be timed so, or the table is refused.
        ExportError: a network that is too large for a file.
        OSError: the file cannot be written.
    """
    if told := disturbed():
        say(console, told)
    way = Way(options.runtime, options.device, options.threads, options.rounds)
    times = time_cells(choose_cells(), options.deploy, way, partial(counting_bar, console))
    _write(times, options, console)


def pack(options: argparse.Namespace, console: Console) -> None:
    """Write a folder for another machine.

    Raises:
        DeviceError, ExportError, OSError: as `write_folder`.
    """
    with counting_bar(console, "building") as built:
        write_folder(options.out, choose_cells(), options.deploy, built)
    size = sum(path.stat().st_size for path in options.out.iterdir())
    say(console, f"{printable(options.out)}: {size / 1e6:,.0f} MB; on the device: python {SCRIPT}")
    say(console, f"then here: python -m pnas_fast.latency fit {printable(options.out / TIMES)} --out FILE")


def fit(options: argparse.Namespace, console: Console) -> None:
    """Make a device's file of times from another machine.

    Raises:
        DeviceError: the times are refused.
        OSError: the file cannot be written.
    """
    _write(read_times(options.times), options, console)


def _write(times: Times, options: argparse.Namespace, console: Console) -> None:
    found = device_file(times)
    for line in summary(found):
        say(console, line)
    if found.judged.median_error > LARGEST_ERROR and not options.force:
        raise DeviceError(
            f"the table's median error on networks held out is {found.judged.median_error:.0%}, allowed is "
            f"{LARGEST_ERROR:.0%}; time them with nothing beside, or write it all the same with --force"
        )
    write_device(options.out, found)
    say(console, f"{printable(options.out)}: {found.digest[:12]}")


def write_device(path: Path, device: DeviceFile) -> None:
    """Write a device's file."""
    with replacing(path) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(device), indent=1) + b"\n")


def summary(found: DeviceFile) -> list[str]:
    """What a device's file says, for people."""
    device, judged = found.device, found.judged
    fastest = [network.fastest for network in found.networks]
    return [
        f"{printable(device.name)}, {device.runtime} {device.versions.get(device.runtime, '')}, "
        f"{device.provider}, {device.threads} threads, {device.clock} clock",
        f"{len(fastest)} networks {found.deployment}: {min(fastest):.3g} to {max(fastest):.3g} ms",
        f"{judged.networks} of them held out: rank correlation {_correlation(judged.rank_correlation)}, "
        f"{_correlation(judged.same_size)} among those of five blocks; "
        f"error {judged.median_error:.1%} (median), {judged.largest_error:.1%} at most",
    ]


def _correlation(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
