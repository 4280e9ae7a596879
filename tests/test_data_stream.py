"""Streamed images: the same batches and trainings as resident ones, from any batch on."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pnas_fast import SearchConfig, run_search
from pnas_fast.data import (
    DataError,
    DataSet,
    Pictures,
    TrainingBatches,
    ValidationBatches,
    digest,
    load,
    source,
)
from pnas_fast.data import stream as stream_module
from pnas_fast.data.__main__ import main as describe
from pnas_fast.data.digest import test_digest as digest_of_tests
from pnas_fast.data.few_shot import check_tasks
from pnas_fast.data.loader import Staged, resident
from pnas_fast.data.streamed import Streamed
from pnas_fast.engine import TrainingSettings
from pnas_fast.evaluation.child import ChildTraining, train_child
from pnas_fast.evaluation.guard import measure
from pnas_fast.evaluation.train import Train, plain_settings
from pnas_fast.executors.shared import read_data, shared_data
from pnas_fast.protocols import Context, EvaluatorError, Proposal
from pnas_fast.space import Cell
from pnas_fast.threads import granted, torch_threads
from pnas_fast.train.__main__ import main as train
from pnas_fast.train.checkpoint import Checkpoint, Place
from pnas_fast.train.config import TrainConfig
from pnas_fast.train.group import Group
from pnas_fast.train.training import LongTraining

IMAGES = np.random.default_rng(5).integers(0, 256, (100, 9, 8, 3), np.uint8)
CELL = Cell.parse("0:sep3x3+1:max_pool3x3")
TINY = TrainingSettings(filters=2, repeats=1, epochs=2, batch=40, drop_path=0.3, device="cpu")


@pytest.fixture(autouse=True)
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The user's cache is elsewhere; no process of a loader is left."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    with torch_threads(1):
        yield
    assert not multiprocessing.active_children()


def write(root: Path, rows: slice = slice(0, 100)) -> Path:
    for number in range(100)[rows]:
        folder = root / "abc"[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[number]).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 images of three classes."""
    return write(tmp_path_factory.mktemp("images") / "all")


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with all parts."""
    folder = tmp_path_factory.mktemp("split")
    for part, rows in (("train", slice(0, 70)), ("val", slice(70, 85)), ("test", slice(85, 100))):
        write(folder / part, rows)
    return folder


def opened(root: Path, kind: str = "imagefolder", **settings: object) -> DataSet:
    return load(f"{kind}:{root}", pictures=Pictures(**settings))  # type: ignore[arg-type]


def in_memory(data: DataSet) -> DataSet:
    """The same data set in tensors."""
    test = None if data.test_images is None else resident(data.test_images)
    return replace(
        data,
        train_images=resident(data.train_images),
        validation_images=resident(data.validation_images),
        test_images=test,
    )


def assert_same(got: object, expected: object) -> None:
    for (images, labels), (other_images, other_labels) in zip(got, expected, strict=True):  # type: ignore[call-overload]
        assert torch.equal(labels, other_labels)
        assert torch.equal(images, other_images)
        assert images.stride() == other_images.stride()


def pictures_of(images: object) -> list[bytes]:
    """The pixels of each image, in order of their bytes."""
    pixels = resident(images).permute(0, 2, 3, 1)  # type: ignore[arg-type]
    return sorted(image.contiguous().numpy().tobytes() for image in pixels)


# Batches.


@pytest.mark.parametrize(("loaders", "batch", "share"), [(1, 40, (0, 1)), (3, 90, (1, 2)), (2, 7, (0, 1))])
def test_batches_are_those_of_the_same_images_in_memory(
    root: Path, loaders: int, batch: int, share: tuple[int, int]
) -> None:
    data = replace(opened(root, loaders=loaders), flip=True)
    mine = TrainingBatches(data, batch, 3, cutout=3, share=share)
    expected = TrainingBatches(in_memory(data), batch, 3, cutout=3, share=share)
    for epoch in (0, 1, 4):
        assert_same(mine.epoch(epoch), expected.epoch(epoch))
    mine.close()


def test_an_epoch_begins_at_any_batch(root: Path) -> None:
    data = opened(root, loaders=2)
    mine, expected = TrainingBatches(data, 16, 3), list(TrainingBatches(in_memory(data), 16, 3).epoch(2))
    other = mine.epoch(1)
    next(other)  # and is left in its middle
    for index in (4, 0, 5, 2):
        assert_same(mine.epoch(2, index), expected[index:])
    assert_same([mine.batch(2, 3)], [expected[3]])
    mine.close()


@pytest.mark.parametrize("batch", [4, 10, 64])
def test_validation_and_test_images_come_in_order(split: Path, batch: int) -> None:
    for data in (opened(split), opened(split).tested()):
        mine = ValidationBatches(data, batch)
        for _ in range(2):
            assert_same(mine, ValidationBatches(in_memory(data), batch))
        mine.close()


def test_feeding_draws_no_random_number(root: Path) -> None:
    batches = TrainingBatches(opened(root), 16, 3)
    before = torch.get_rng_state()
    for epoch in range(2):
        list(batches.epoch(epoch))
    batches.close()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_memory_of_a_batch_stays_where_it_is(root: Path) -> None:
    images = opened(root).train_images
    assert isinstance(images, Streamed)
    staged = Staged(images, 8)
    staged.begin(lambda: [np.arange(8), np.arange(8, 11)])
    place = staged.images.data_ptr()
    staged.feed()
    assert torch.equal(staged.images, resident(images[:8]))
    staged.feed()
    assert torch.equal(staged.images[:3], resident(images[8:11]))
    assert torch.equal(staged.images[3:], resident(images[10:11]).expand(5, -1, -1, -1))
    assert staged.images.data_ptr() == place
    staged.close()


# Trainings.


@pytest.mark.parametrize("backend", ["cpu", "eager"])
def test_a_child_is_the_one_trained_on_the_same_images_in_memory(split: Path, backend: str) -> None:
    data, settings = opened(split), replace(TINY, backend=backend, batch=16)
    results = [train_child(CELL, settings, each, 7, tests=True)[0] for each in (data, in_memory(data))]
    assert results[0].status == "done"
    names = ("epoch_losses", "accuracy", "validation_loss", "test", "images_seen")
    assert [getattr(results[0], name) for name in names] == [getattr(results[1], name) for name in names]


def test_children_in_turns_read_their_own_images(split: Path) -> None:
    """Two in one process, step by step; the readers of one that is given up end with it."""
    data, settings = opened(split), replace(TINY, backend="cpu", batch=16)
    trainings = [ChildTraining(CELL, settings, data, seed) for seed in (7, 8)]
    given_up = ChildTraining(CELL, settings, data, 9)
    assert given_up.advance(1)
    left = list(trainings)
    while left:
        left = [training for training in left if training.advance(1)]
    del given_up
    assert not multiprocessing.active_children()
    for training, seed in zip(trainings, (7, 8), strict=True):
        result, network = train_child(CELL, settings, in_memory(data), seed)
        assert training.result.epoch_losses == result.epoch_losses
        assert training.result.accuracy == result.accuracy
        assert network is not None
        assert training.network is not None
        own, other = training.network.state_dict(), network.state_dict()
        assert all(torch.equal(value, other[name]) for name, value in own.items())


@pytest.mark.slow
def test_a_search_has_the_same_trials(split: Path, tmp_path: Path) -> None:
    config = SearchConfig(
        strategy="random", budget=3, blocks=1, epochs=1, batch=32, filters=2, device="cpu", workers=2,
        finalists=2, final_replicas=1, operations=("identity", "max_pool3x3"), data=f"imagefolder:{split}",
    )  # fmt: skip
    found = run_search(config, out=tmp_path / "streamed", progress=False)
    data = in_memory(opened(split))
    other = run_search(replace(config, data="digits"), data=data, out=tmp_path / "resident", progress=False)
    names = ("accuracy", "validation_loss", "loss", "test_accuracy")
    trials = [
        [(str(trial.cell), *(repr(trial.value(name)) for name in names)) for trial in result.record.trials]
        for result in (found, other)
    ]
    assert trials[0] == trials[1]
    assert len(trials[0]) >= 3
    # What it has is not trained again, and what is other data is refused.
    assert run_search(config, out=tmp_path / "streamed", progress=False).best == found.best


def test_a_training_goes_on_in_the_middle_of_an_epoch(root: Path) -> None:
    data = opened(root)
    config = TrainConfig(
        cell="0:identity+1:max_pool3x3", repeats=1, filters=2, batch=16, epochs=2, auxiliary=0.0, cutout=2,
        device="cpu", threads=1, precision="fp32", backend="eager", drop_path=0.3,
    )  # fmt: skip
    group = Group()
    whole, first, second = (LongTraining(config, each, group) for each in (in_memory(data), data, data))
    places = [(epoch, index) for epoch in range(2) for index in range(whole.steps)]
    for place in places:
        whole.step(*place)
    for place in places[:8]:
        first.step(*place)
    epoch, index = places[8]
    assert index not in (0, whole.steps)
    state = {name: tensor.clone() for name, tensor in first.tensors().items()}
    second.restore(Checkpoint(Path("x"), Place(epoch, index), None, state))
    for place in places[8:]:
        second.step(*place)
    assert second.evaluate() == whole.evaluate()
    for name, expected in whole.tensors().items():
        assert torch.equal(second.tensors()[name], expected), name
    for training in (first, second):
        training.close()


def test_one_copy_for_all_workers_of_a_machine(split: Path, tmp_path: Path) -> None:
    data = opened(split, loaders=3)
    with shared_data(data, tmp_path) as place:
        found = read_data(place)
        assert isinstance(found.train_images, Streamed)
        assert (digest(found), digest_of_tests(found)) == (digest(data), digest_of_tests(data))
        assert torch.equal(resident(found.train_images), resident(data.train_images))
        assert (found.train_images.loaders, found.class_names) == (3, data.class_names)


def test_processes_of_a_loader_leave_signals_to_their_trainer(root: Path) -> None:
    batches = TrainingBatches(opened(root, loaders=2), 16, 3)
    list(batches.epoch(0))  # all of them have begun
    epoch = batches.epoch(1)
    next(epoch)
    for process in multiprocessing.active_children():
        process.terminate()
    assert len(list(epoch)) == len(batches) - 1
    batches.close()


def test_processes_of_a_loader_run_on_every_core(root: Path) -> None:
    batches = TrainingBatches(opened(root, loaders=2), 16, 3)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})  # as OpenMP's runtime ties a thread to a core
    try:
        list(batches.epoch(0))
    finally:
        os.sched_setaffinity(0, before)
    for process in multiprocessing.active_children():
        assert process.pid is not None
        assert os.sched_getaffinity(process.pid) == granted()
    batches.close()


# What a data set is.


def test_pixels_and_parts_are_those_of_the_folder(split: Path) -> None:
    mine, expected = opened(split), opened(split, "folder")
    for part in ("train", "validation", "test"):
        images, labels = (f"{part}_{name}" for name in ("images", "labels"))
        assert pictures_of(getattr(mine, images)) == pictures_of(getattr(expected, images))
        assert torch.equal(getattr(mine, labels).bincount(), getattr(expected, labels).bincount())
    # Few enough that all of them are in the sample.
    for name in ("mean", "std"):
        assert torch.equal(getattr(mine, name), getattr(expected, name))
    assert (mine.class_names, mine.crop_padding, mine.flip) == (("a", "b", "c"), 1, False)


def test_labels_go_with_their_images(root: Path) -> None:
    data = opened(root)
    known = {image.tobytes(): number % 3 for number, image in enumerate(IMAGES)}
    pixels = resident(data.train_images).permute(0, 2, 3, 1)
    found = [known[image.contiguous().numpy().tobytes()] for image in pixels]
    assert found == data.train_labels.tolist()


def test_images_are_resized_as_those_of_the_folder(root: Path) -> None:
    mine, expected = opened(root, size=5), opened(root, "folder", size=5)
    got, wanted = (
        sorted(pictures_of(data.train_images) + pictures_of(data.validation_images))
        for data in (mine, expected)
    )
    assert got == wanted
    assert mine.image_shape == (3, 5, 5)


def test_a_split_is_a_tenth_of_each_class_and_the_same_each_time(root: Path, tmp_path: Path) -> None:
    data = opened(root)
    assert (len(data.train_labels), len(data.validation_labels)) == (90, 10)
    assert sorted(data.validation_labels.bincount().tolist()) == [3, 3, 4]
    shutil.copytree(root, tmp_path / "elsewhere")
    assert source(f"imagefolder:{tmp_path / 'elsewhere'}").identity() == digest(data)


def test_an_identity_changes_with_what_is_seen(tmp_path: Path) -> None:
    folder = write(tmp_path / "images")
    found = {source(f"imagefolder:{folder}", pictures=Pictures(size=size)).identity() for size in (0, 4, 8)}
    (folder / "a" / "0.png").rename(folder / "b" / "0.png")
    found.add(source(f"imagefolder:{folder}").identity())
    (folder / "b" / "1.png").unlink()
    found.add(source(f"imagefolder:{folder}").identity())
    assert len(found) == 5


def test_training_on_validation_images_too(split: Path) -> None:
    data = opened(split)
    joined = data.joined(4)
    pixels = pictures_of(data.train_images) + pictures_of(data.validation_images)
    assert pictures_of(joined.train_images) == sorted(pixels)
    known = {image.tobytes(): number % 3 for number, image in enumerate(IMAGES)}
    images = resident(joined.train_images).permute(0, 2, 3, 1)
    assert [known[image.contiguous().numpy().tobytes()] for image in images] == joined.train_labels.tolist()


def test_grey_images_are_of_one_channel_or_of_three_beside_colour(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for number in range(8):
        (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[number, ..., 0]).save(folder / "ab"[number % 2] / f"{number}.png")
    assert opened(folder).image_shape == (1, 9, 8)
    Image.fromarray(IMAGES[8]).save(folder / "a" / "8.png")
    Image.fromarray(IMAGES[9]).save(folder / "b" / "9.png")
    data = opened(folder)
    assert data.image_shape == (3, 9, 8)
    assert pictures_of(data.train_images) == pictures_of(in_memory(data).train_images)


def test_a_stream_is_described(split: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheets = []
    for kind in ("imagefolder", "folder"):
        sheets.append(tmp_path / f"{kind}.png")
        assert describe(["describe", f"{kind}:{split}", "--sheet", str(sheets[-1])]) == 0
    streamed, _, resident_ones = capsys.readouterr().out.partition("folder:")[2].partition("folder:")
    assert "decoded whenever they are looked at; mean and std are of 1,024 images at most" in streamed
    tables = [text[text.index("class ") :].splitlines()[:5] for text in (streamed, resident_ones)]
    assert tables[0] == tables[1]
    with Image.open(sheets[0]) as one, Image.open(sheets[1]) as other:
        assert one.size == other.size


# What is refused.


@pytest.fixture
def damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A folder and one of its training images, which is none, and which no sample shows."""
    monkeypatch.setattr(stream_module, "SAMPLE", 4)
    folder = write(tmp_path / "images")
    images = opened(folder).train_images
    assert isinstance(images, Streamed)
    path = Path(images.name(50))
    content = path.read_bytes()
    path.write_bytes(content[:60] + bytes(len(content) - 60))  # of the same size, so at the same place
    return folder, path


def test_a_corrupt_file_in_the_middle_of_a_training_is_named(
    damaged: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, path = damaged
    line = (
        f"--cell 0:identity+1:max_pool3x3 --data imagefolder:{folder} --repeats 1 --filters 2 --epochs 1 "
        f"--batch 15 --auxiliary 0 --device cpu --backend eager --threads 1 --out {tmp_path / 'run'}"
    )
    assert train(line.split()) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert f"error: {path}: cannot be read as an image" in error
    assert error.endswith("--skip-unreadable leaves files out that are no images")


def test_a_corrupt_file_is_no_fault_of_a_cell(damaged: tuple[Path, Path], tmp_path: Path) -> None:
    folder, path = damaged
    context = Context(1, 7, opened(folder), "cpu", tmp_path, lambda images: None)
    with pytest.raises(EvaluatorError, match=f"^{path}: cannot be read as an image"):
        measure(Train(plain_settings(TINY), "x"), Proposal(CELL, 1), context)


def test_unreadable_files_are_left_out_and_counted(
    damaged: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, path = damaged
    (folder / "b" / "none.png").write_text("no image")
    told: list[str] = []
    data = opened(folder, skip_unreadable=True, say=told.append)
    assert len(data.train_labels) + len(data.validation_labels) == 99
    (line,) = told
    assert "2 of 101 files are no images and left out" in line
    assert str(path) in line
    resident(data.train_images)
    # Looked for once.
    monkeypatch.setattr(stream_module.StreamSource, "_look_for_refused", None)
    again = opened(folder, skip_unreadable=True, say=told.append)
    assert told == [line, line]
    assert digest(again) == digest(data)


def test_images_of_several_sizes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "images")
    images = opened(folder).train_images
    assert isinstance(images, Streamed)
    path = Path(images.name(60))
    Image.fromarray(IMAGES[0][:5]).save(path)
    with pytest.raises(DataError, match=f"{path}: 8x5 pixels, .* has 8x9: --image-size makes all"):
        opened(folder)
    assert len(opened(folder, size=4).train_labels) == 90
    monkeypatch.setattr(stream_module, "SAMPLE", 4)
    data = opened(folder)
    with pytest.raises(DataError, match=f"{path}: 8x5 pixels, .* has 8x9: --image-size makes all"):
        resident(data.train_images)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "images")
    data = opened(folder)
    batches = TrainingBatches(data, 16, 3)
    (folder / "a" / "0.png").unlink()
    (folder / "a" / "99.png").unlink()
    with pytest.raises(DataError, match=r"a/(0|99).png: cannot be read as an image \(No such file"):
        list(batches.epoch(0))
    batches.close()


def test_few_shot_tasks_need_images_in_memory(root: Path) -> None:
    with pytest.raises(
        DataError, match="is streamed, few-shot tasks need data in memory, such as folder:DIR"
    ):
        check_tasks(opened(root), 2, 2, 2)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("", "data 'imagefolder:' names no place, expected imagefolder:DIR"),
        ("nowhere", "nowhere: is no folder"),
        ("empty", "empty: holds no folder"),
    ],
)
def test_what_is_no_folder_of_images(
    argument: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=f"^{expected}"):
        load(f"imagefolder:{argument}")
