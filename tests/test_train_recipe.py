"""What a long training does where nothing was asked for: it follows the images."""

from __future__ import annotations

from pathlib import Path

import pytest

from pnas_fast.cli.options import ConfigError
from pnas_fast.data import DataSet, load
from pnas_fast.data.digest import digest
from pnas_fast.threads import torch_threads
from pnas_fast.train.__main__ import main
from pnas_fast.train.cli import Settled, parse
from pnas_fast.train.config import TrainConfig
from pnas_fast.train.group import Group
from pnas_fast.train.history import read_history
from pnas_fast.train.recipe import check_suits, suited
from pnas_fast.train.training import LongTraining

SEARCH = Path(__file__).with_name("data") / "run_of_schema_2"


def settled(line: str, data: DataSet) -> Settled:
    return parse(["--device", "cpu", *line.split()], processes=1).settled(data, digest(data))


def test_images_of_32_pixels_are_trained_by_the_published_recipe() -> None:
    config = settled("", load("synthetic:32x32x3/10")).config
    published = TrainConfig()
    for name in ("cutout", "drop_path", "auxiliary", "batch", "learning_rate"):
        assert getattr(config, name) == getattr(published, name)


@pytest.mark.parametrize(
    ("images", "epochs"),
    [(1, 60), (450, 60), (1437, 107), (4500, 190), (45_000, 600), (90_000, 300), (10**7, 60)],
)
def test_epochs_follow_the_number_of_images(images: int, epochs: int) -> None:
    data = load("synthetic:1x1x1/2").subset(1)
    object.__setattr__(data, "train_labels", data.train_labels.expand(images))
    assert suited(TrainConfig(), data)["epochs"] == epochs


@pytest.mark.parametrize("side", [1, 2, 4, 5, 8, 11, 12, 13, 16, 17, 24, 32, 48])
def test_what_follows_images_of_any_side_can_be_trained(side: int) -> None:
    data = load(f"synthetic:{side}x{side + 2}x1/3").subset(4)
    line = f"--cell 0:identity+1:max_pool3x3 --data {data.name} --filters 2 --repeats 1 --batch 2"
    config = settled(line, data).config
    assert config.cutout <= side // 2
    with torch_threads(1):
        training = LongTraining(config, data, Group())
        training.step(0, 0)
    assert training.is_finite()
    assert (training.network.auxiliary is not None) == (config.auxiliary > 0)
    # It is left out only where it cannot be.
    if not config.auxiliary:
        with pytest.raises(ConfigError, match="auxiliary classifier would read a map of"):
            LongTraining(settled(f"{line} --auxiliary 0.4", data).config, data, Group())


def test_what_is_asked_for_does_not_follow() -> None:
    config = settled("--data digits --cutout 3 --epochs 7 --drop-path 0.25", load("digits")).config
    assert (config.cutout, config.epochs, config.drop_path, config.auxiliary) == (3, 7, 0.25, 0.0)


def test_a_cutout_as_large_as_an_image_is_refused() -> None:
    data = load("synthetic:9x7x1/2")
    check_suits(TrainConfig(cutout=6), data)
    with pytest.raises(ConfigError, match="cutout is 7 on images of 9×7, allowed is 0 to 6"):
        check_suits(TrainConfig(cutout=7), data)


def test_the_best_cell_of_a_search_is_trained_on_its_data_with_its_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    line = f"--run {SEARCH} --epochs 6 --filters 6 --device cpu --threads 1 --out {folder}"
    assert main(line.split()) == 0
    config = TrainConfig.load(folder / "config.json")
    assert config.cell == "1:identity+1:identity,2:identity+2:identity"
    assert (config.data, config.repeats, config.filters, config.cutout) == ("digits", 1, 6, 0)
    assert "cutout 0, drop-path 0.1, no auxiliary classifier" in capsys.readouterr().out
    judged = read_history(folder)[-1].judged
    assert judged is not None
    assert judged > 0.2  # chance is 0.1
    assert parse(["--search", str(SEARCH)], processes=1).config.filters == 4


def test_every_backend_is_the_fastest_by_default() -> None:
    config = settled("--data digits", load("digits"))
    assert (config.asked.backend, config.config.backend) == ("auto", "cpu")
    assert settled("--data digits --fused", load("digits")).config == config.config
    assert settled("--data digits --backend eager", load("digits")).config.backend == "eager"
