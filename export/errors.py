"""What exporting and inference raise."""

from __future__ import annotations

import importlib

EXTRA = "pip install 'pnas_fast[deploy]'"
"""Installs what exporting and inference need beyond training."""


class ExportError(ValueError):
    """Something that cannot be exported or run; the message says what was found and what is allowed."""


def require(*packages: str, extra: str = EXTRA) -> None:
    """Say in one line how to install a package that is not there.

    Args:
        packages: by the names that they are imported by.
        extra: the command that installs them.

    Raises:
        ExportError: one of the packages cannot be imported.
    """
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ExportError(f"{package} cannot be imported ({error}); install it with: {extra}") from error
