"""Where released weights come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from pnas_fast.data import DataError
from pnas_fast.data.download import RemoteFile, fetch_file
from pnas_fast.zoo.errors import ZooError


@dataclass(frozen=True, slots=True)
class Unchecked:
    """A released file that is not fetched, as nobody published a checksum of it."""

    url: str
    weights: str


RELEASED: dict[str, RemoteFile | Unchecked] = {
    # Of its checksum only the first digits were published, with which its name ends as PyTorch's own
    # downloads have it: so it comes over HTTPS, from where timm takes it.
    "pnasnet5_large": RemoteFile(
        "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene/"
        "pnasnet5large-bf079911.pth",
        None,
        sha256="bf079911",
    ),
    "pnasnet5_mobile": Unchecked(
        url="https://storage.googleapis.com/download.tensorflow.org/models/pnasnet-5_mobile_2017_12_13.tar.gz",
        weights="model.ckpt",
    ),
}


def released_file(name: str | None) -> Path:
    """The released weights of a model, fetched unless they are there already.

    They lie where `torch.hub` keeps its own, so a copy that another library fetched is found.

    Raises:
        ZooError: none are released, or they cannot be fetched; the message says where to put them by hand.
    """
    released = RELEASED.get(name or "")
    if released is None:
        raise ZooError(f"model {name!r} has no released weights, allowed are {' '.join(RELEASED)}")
    if isinstance(released, Unchecked):
        raise ZooError(
            f"model {name!r}: no checksum of {released.url} is known, so it is not fetched; unpack it "
            f"yourself and give weights=FOLDER/{released.weights}"
        )
    path = Path(torch.hub.get_dir()) / "checkpoints" / released.url.rpartition("/")[2]
    if not path.is_file():
        _fetch(released, path)
    return path


def _fetch(released: RemoteFile, path: Path) -> None:
    columns = TextColumn(path.name), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        try:
            fetch_file(released, path, lambda done, total: bar.update(task, completed=done, total=total))
        except DataError as error:
            raise ZooError(f"{error}; put the file at {path} yourself, or give weights=FILE") from error
