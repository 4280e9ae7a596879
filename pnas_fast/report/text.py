"""Numbers as people read them."""

from __future__ import annotations

from math import floor, log10
from typing import Any, TypeGuard

MISSING = "–"
"""What stands for a value that is None or no number that means something."""


LARGEST = 1e30
"""Beyond it a number says that something is wrong, and axes overflow: it is shown as if it were missing."""


def is_known(value: float | None) -> TypeGuard[float]:
    """Whether a value is there, finite and of a size that means something."""
    return value is not None and abs(value) <= LARGEST


def number(value: Any) -> float | None:
    """A JSON value as a number; None where it is none, or one that `is_known` refuses."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if is_known(value) else None


def count(value: float | None) -> str:
    """A whole number with its thousands marked: ``559,090``."""
    return MISSING if not is_known(value) else f"{value:,.0f}"


def magnitude(value: float | None) -> str:
    """A large number in millions (M) or billions (B): ``0.35 M``, ``112.0 M``, ``1.04 B``.

    Below 100,000, where millions would round it away, it is written out.
    """
    if not is_known(value) or value < 100_000:
        return count(value)
    scaled, unit = (value / 1e9, "B") if value >= 1e9 else (value / 1e6, "M")
    return f"{scaled:,.2f} {unit}" if scaled < 10 else f"{scaled:,.1f} {unit}"


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction as a percentage: 0.974 is ``97.4 %``."""
    return MISSING if not is_known(fraction) else f"{100 * fraction:.{digits}f} %"


def points(difference: float) -> str:
    """A difference of two percentages with its sign: ``+1.52 points``."""
    return f"{100 * difference:+.2f} points"


def accuracy(fraction: float | None, error: float | None, digits: int = 2) -> str:
    """A fraction and its standard error, where that is known: ``97.40 ± 0.51 %``."""
    if error is None or not is_known(fraction):
        return percent(fraction, digits)
    return f"{100 * fraction:.{digits}f} ± {percent(error, digits)}"


def share(fraction: float | None) -> str:
    """A part of a whole, from all of it down to almost nothing: ``100 %``, ``48 %``, ``0.0031 %``."""
    if fraction is None:
        return MISSING
    percentage = 100 * fraction
    if 0 < percentage < 1e-6:
        return "< 0.000001 %"
    return f"{percentage:.{max(0, 1 - floor(log10(percentage)))}f} %" if percentage > 0 else "0 %"


def correlation(value: float | None) -> str:
    """A rank correlation with two decimals and a proper minus sign."""
    return MISSING if not is_known(value) else f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def duration(seconds: float | None) -> str:
    """Seconds in the two units that matter: ``0.8 s``, ``4 min 05 s``, ``3 h 07 min``, ``2 d 03 h``."""
    if not is_known(seconds):
        return MISSING
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 3599.5:
        return "{:d} min {:02d} s".format(*divmod(round(seconds), 60))
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return "{:d} h {:02d} min".format(*divmod(minutes, 60))
    return "{:d} d {:02d} h".format(*divmod(round(seconds / 3600), 24))


def plain(value: float | None) -> str:
    """Any other number, in at most five figures: ``3.1416``, ``12``, ``0.00052``."""
    return MISSING if not is_known(value) else f"{float(f'{value:.5g}'):.15g}"


def gib(memory: float) -> str:
    """Bytes in binary gigabytes: ``3.25 GiB``."""
    return f"{memory / 2**30:.2f} GiB"


def plural(number: int, noun: str, nouns: str) -> str:
    """``1 child``, ``136 children``."""
    return f"{count(number)} {noun if number == 1 else nouns}"


def setting(value: Any) -> str:
    """A JSON value of the configuration as text."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(setting, value))
    return str(value)


def printable(text: str) -> str:
    """Text that UTF-8 can hold: what stands for other bytes, in names of files, is written as ``\\udcff``."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
