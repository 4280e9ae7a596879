"""Few-shot learning: classes and tasks, Reptile's formula, and that it learns; what must not matter."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pnas_fast import SearchConfig
from pnas_fast.cli.options import ConfigError, option_name
from pnas_fast.compare.cli import parse as parse_comparison
from pnas_fast.compare.command import main as compare
from pnas_fast.compare.compared import Comparison
from pnas_fast.compare.rigour import rigour_of
from pnas_fast.data import DataError, DataSet, load
from pnas_fast.data.few_shot import Steps, Task, Tasks, check_tasks, class_parts
from pnas_fast.data.parts import Part, assemble
from pnas_fast.engine import TrainingSettings, replayed
from pnas_fast.engine.adapted import Questions, judge
from pnas_fast.engine.few_shot import NOT_TAKEN, OPTIONS, FewShotSettings
from pnas_fast.engine.reptile import Adam, Adaptation, Reptile
from pnas_fast.evaluation import build_child
from pnas_fast.evaluation.guard import make_evaluator
from pnas_fast.evaluation.reptile import Learning, few_shot_spec
from pnas_fast.protocols import Context, Measurement, Proposal, Trial
from pnas_fast.protocols.values import FINAL
from pnas_fast.report.view import RunView
from pnas_fast.runs.choice import Finalist
from pnas_fast.runs.config import short_digest
from pnas_fast.runs.record import RunRecord
from pnas_fast.search.cli import parse
from pnas_fast.search.command import main
from pnas_fast.search.result import SearchResult
from pnas_fast.space import Cell

CELL = Cell.parse("0:identity+1:max_pool3x3")
SETTINGS = TrainingSettings(filters=4, device="cpu")
BRIEF = FewShotSettings(
    few_shot_ways=2, few_shot_shots=2, few_shot_queries=3, few_shot_tasks=4, meta_iterations=2, meta_batch=2,
    meta_shots=5, inner_iterations=3, adaptation_iterations=3, inner_rate=0.01,
)  # fmt: skip


def boards() -> DataSet:
    """20 classes of chequered images: a class is a contrast, brightness says nothing and varies far more."""
    random = np.random.default_rng(1)
    labels = np.arange(600) % 20
    contrast = 3.2 * (1 + random.permutation(20)[labels])
    board = np.indices((8, 8)).sum(0) % 2 * 2 - 1
    images = (
        random.uniform(60, 190, (600, 1, 1, 1))
        + board[None, :, :, None] * contrast[:, None, None, None]
        + random.normal(0, 3, (600, 8, 8, 1))
    )
    return assemble("boards", {"train": Part(np.clip(images, 0, 255).astype(np.uint8), labels)})


def context(data: DataSet, report: Callable[[int], None] = lambda images: None) -> Context:
    return Context(0, 7, data, "cpu", Path(), report)


def measured(data: DataSet, few_shot: FewShotSettings = BRIEF, *, final: bool = False) -> dict[str, float]:
    """What is measured of a cell, without times."""
    spec = few_shot_spec(SETTINGS, few_shot, "data", 5)
    proposal = Proposal(CELL, few_shot.meta_iterations, note={FINAL: 1} if final else {})
    found = make_evaluator(spec).measure(proposal, context(data))
    return {name: value for name, value in found.values.items() if "second" not in name}


@pytest.mark.parametrize(("classes", "sizes"), [(100, (64, 16, 20)), (10, (6, 2, 2)), (20, (13, 3, 4))])
def test_classes_are_split_for_good(classes: int, sizes: tuple[int, ...]) -> None:
    parts = class_parts(classes)
    assert tuple(map(len, parts)) == sizes
    assert sorted(np.concatenate(parts)) == list(range(classes))


def test_the_split_of_ten_classes_never_changes() -> None:
    train, validation, test = (part.tolist() for part in class_parts(10))
    assert (train, validation, test) == ([0, 1, 2, 3, 5, 9], [4, 6], [7, 8])


def test_a_task_is_a_function_of_its_numbers() -> None:
    data = load("digits")
    tasks = Tasks(data, class_parts(10).train, 3, 6, Steps(5, 8, 4), seed=1)
    task, same, other = tasks.draw(0, 4), tasks.draw(0, 4), tasks.draw(0, 5)
    assert all(torch.equal(one, two) for one, two in zip(task, same, strict=True))
    assert not torch.equal(task.images, other.images)
    assert task.images.shape == (18, 1, 8, 8)
    assert task.labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert len({image.numpy().tobytes() for image in task.images}) == 18
    # Only the first four images of each class are adapted to, all of them before one comes again.
    shown = task.places.flatten()
    assert task.places.shape == (5, 8)
    assert (
        sorted(shown[:12].tolist())
        == sorted(shown[12:24].tolist())
        == [0, 1, 2, 3, 6, 7, 8, 9, 12, 13, 14, 15]
    )


def test_tasks_show_images_of_their_own_classes_normalised_by_the_training_classes() -> None:
    data = load("digits")
    images = torch.cat([data.train_images, data.validation_images]).double()
    labels = torch.cat([data.train_labels, data.validation_labels])
    trained = images[torch.isin(labels, torch.from_numpy(class_parts(10).train))]
    normal = ((images - trained.mean()) / trained.std(correction=0)).float().flatten(1)
    for part in class_parts(10):
        task = Tasks(data, part, 2, 40, Steps(1, 2, 1), seed=0).draw(0)
        nearest = torch.cdist(task.images.flatten(1), normal).min(1)
        assert nearest.values.max() < 1e-2
        classes = [set(labels[nearest.indices[task.labels == label]].tolist()) for label in (0, 1)]
        assert all(len(found) == 1 for found in classes)
        assert classes[0] | classes[1] <= set(part.tolist())
        assert classes[0] != classes[1]


def test_a_data_set_needs_classes_and_images() -> None:
    with pytest.raises(
        DataError, match=r"tasks of 3 classes, .* 6 / 2 / 2 to .* allowed are tasks of 2 to 2$"
    ):
        check_tasks(load("digits"), 3, 1, 1)
    with pytest.raises(DataError, match=r"are split 3 / 1 / 1 .* allowed are 2 or more of each$"):
        check_tasks(load("synthetic:8x8x1/5"), 2, 1, 1)
    found = r"boards: class \d+ has 30 images, of which few-shot tasks of"
    with pytest.raises(DataError, match=f"{found} train classes take 31$"):
        check_tasks(boards(), 2, 31, 30)
    with pytest.raises(DataError, match=f"{found} validation classes take 31$"):
        check_tasks(boards(), 2, 30, 31)


class Line(nn.Module):
    """Logits linear in pixels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 2, dtype=torch.float64)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layer(images.flatten(1))
        return logits


def made_up_task(seed: int) -> Task:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(6, 1, 2, 2, dtype=torch.float64, generator=generator)
    places = torch.randint(6, (3, 4), generator=generator)
    return Task(images, torch.tensor([0, 0, 0, 1, 1, 1]), places)


def test_meta_iterations_are_the_formula() -> None:
    tasks = [[made_up_task(2 * iteration + number) for number in range(2)] for iteration in range(3)]
    network = Line()
    w, b = (parameter.detach().numpy().copy() for parameter in network.layer.parameters())
    adaptation = Adaptation(network, Adam(list(network.parameters()), 0.05), tasks[0][0])
    reptile = Reptile(network, adaptation, 3)
    for iteration in range(3):
        reptile.step(iteration, tasks[iteration])

    # In NumPy: softmax's gradient, Adam without momentum, the mean of what came out, a step of 1 - i/n to it.
    phi = np.concatenate([w.ravel(), b])
    squares, t, losses = np.zeros(10), 0, []
    for iteration in range(3):
        adapted = []
        for images, labels, places in tasks[iteration]:
            theta = phi.copy()
            for shown in places.numpy():
                x, y = images.flatten(1).numpy()[shown], np.eye(2)[labels.numpy()[shown]]
                logits = x @ theta[:8].reshape(2, 4).T + theta[8:]
                shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
                losses.append(-np.log((shares * y).sum(1)).mean())
                slope = (shares - y) / len(x)
                gradient = np.concatenate([(slope.T @ x).ravel(), slope.sum(0)])
                t += 1
                squares = 0.999 * squares + 0.001 * gradient**2
                theta -= 0.05 * gradient / (np.sqrt(squares / (1 - 0.999**t)) + 1e-8)
            adapted.append(theta)
        phi += (1 - iteration / 3) * (np.mean(adapted, 0) - phi)
    found = torch.cat([parameter.detach().flatten() for parameter in network.layer.parameters()])
    np.testing.assert_allclose(found.numpy(), phi, rtol=1e-12, atol=1e-14)
    assert float(adaptation.losses) == pytest.approx(sum(losses), rel=1e-12)


class Beside(nn.Module):
    """Says class 1 where an image is brighter than the mean of its batch: it depends on what is beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[float]] = []
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.flatten(1).mean(1)
        self.batches.append(pixels.tolist())
        score = self.scale * (pixels - pixels.mean())
        return torch.stack([-score, score], 1)


@pytest.mark.parametrize("transductive", [False, True])
def test_a_question_is_shown_beside_what_was_adapted_to_or_beside_the_others(transductive: bool) -> None:
    images = torch.tensor([0.0, 1, 2, 10, 11, 12]).view(6, 1, 1, 1)
    task = Task(images, torch.tensor([0, 0, 0, 1, 1, 1]), torch.zeros(1, 2, dtype=torch.int64))
    network = Beside()
    adaptation = Adaptation(network, Adam(list(network.parameters()), 0.1), task)
    accuracy, loss = Questions(network, adaptation, 1, transductive).ask()
    alone = [[0.0, 10, question] for question in (1.0, 2, 11, 12)]
    assert network.batches == ([[1.0, 2, 11, 12]] if transductive else alone)
    assert accuracy == 1
    assert loss > 0


def test_judging_leaves_weights_and_optimiser_as_they_were() -> None:
    network = Line()
    optimizer = Adam(list(network.parameters()), 0.05)
    tasks = [made_up_task(seed) for seed in range(3)]
    adaptation = Adaptation(network, optimizer, tasks[0])
    adaptation.adapt(tasks[0])
    before = [tensor.clone() for tensor in (*network.parameters(), *optimizer.memory)]
    questions = Questions(network, adaptation, 2, False)
    found = judge(network, optimizer, adaptation, questions, tasks)
    for one, other in zip(before, (*network.parameters(), *optimizer.memory), strict=True):
        assert torch.equal(one, other)
    # So the order of tasks does not matter, and each counts alike.
    again = judge(network, optimizer, adaptation, questions, tasks[::-1])
    assert (found.accuracy, found.error) == pytest.approx((again.accuracy, again.error))
    alone = [judge(network, optimizer, adaptation, questions, [task] * 2).accuracy for task in tasks]
    assert found.accuracy == pytest.approx(np.mean(alone))
    assert found.error == pytest.approx(np.std(alone, ddof=1) / math.sqrt(3))


def test_replayed_steps_have_the_bits_of_steps_by_themselves() -> None:
    data = boards()
    tasks = Tasks(data, class_parts(20).train, 2, 6, Steps(4, 6, 4), seed=1)
    drawn = [tasks.draw(number) for number in range(3)]
    weights = []
    replay = partial(replayed, device=torch.device("cpu"), backend="cpu")
    for made in (lambda step: step, replay):
        network = build_child(CELL, replace(SETTINGS, backend="cpu"), data, 3, outputs=2)
        optimizer = Adam(list(network.parameters()), 0.01)
        adaptation = Adaptation(network, optimizer, drawn[0], made)
        for task in drawn:
            adaptation.adapt(task)
        questions = Questions(network, adaptation, 4, False, made)
        answers = [questions.ask() for _ in range(2)]
        assert answers[0] == answers[1]
        weights.append((answers[0], [p.detach().clone() for p in network.parameters()]))
    assert weights[0][0] == weights[1][0]
    for one, other in zip(weights[0][1], weights[1][1], strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_it_learns_to_learn() -> None:
    few_shot = replace(
        BRIEF, few_shot_shots=5, few_shot_queries=5, few_shot_tasks=40, meta_batch=3, inner_iterations=4,
        adaptation_iterations=2, inner_rate=0.003,
    )  # fmt: skip
    learning = Learning(CELL, SETTINGS, few_shot, context(boards()), 0)
    before = learning.judged()
    values = learning.values(80, tests=True)
    assert before.accuracy < 0.7
    assert before.accuracy + 0.2 < values["accuracy"] > 0.9
    assert values["test_accuracy"] > 0.8


def test_what_is_measured() -> None:
    told: list[int] = []
    spec = few_shot_spec(SETTINGS, BRIEF, "data", 5)
    evaluator = make_evaluator(spec)
    found = evaluator.measure(Proposal(CELL, 3), context(boards(), told.append))
    assert set(found.values) == {
        "accuracy", "accuracy_error", "validation_loss", "loss", "seconds", "evaluation_seconds",
        "images_per_second", "images_seen", "parameters", "multiply_adds",
    }  # fmt: skip
    assert found.values["images_seen"] == told[-1] == 3 * 2 * 3 * 10
    final = measured(boards(), final=True)
    assert final.keys() - measured(boards()).keys() == {"test_accuracy", "test_accuracy_error", "test_loss"}


def test_test_classes_have_no_influence_on_what_is_chosen_by() -> None:
    data = boards()
    tests = torch.from_numpy(class_parts(20).test)

    def mixed(labels: Tensor) -> Tensor:
        """Labels of which those of the test classes are permuted, image by image."""
        mine = torch.isin(labels, tests).nonzero()[:, 0]
        other = labels.clone()
        other[mine] = labels[mine[torch.randperm(len(mine), generator=torch.Generator().manual_seed(0))]]
        return other

    wrong = replace(
        data, train_labels=mixed(data.train_labels), validation_labels=mixed(data.validation_labels)
    )
    assert not torch.equal(wrong.train_labels, data.train_labels)
    right, other = measured(data, final=True), measured(wrong, final=True)
    assert {n for n in right if right[n] != other[n]} <= {"test_accuracy", "test_accuracy_error", "test_loss"}
    assert right["test_loss"] != other["test_loss"]
    # Nor has what the images of test classes show.
    dark = replace(data, train_images=data.train_images.clone())
    dark.train_images[torch.isin(data.train_labels, tests)] = 0
    assert measured(dark) == measured(data)


def test_nothing_but_its_own_seed_matters_to_a_child() -> None:
    first = measured(boards())
    torch.manual_seed(11)
    measured(load("digits"), replace(BRIEF, inner_rate=0.1))
    assert measured(boards()) == first


def test_a_child_that_diverges_or_takes_too_long_says_so() -> None:
    slow = Learning(CELL, replace(SETTINGS, time_limit=0.001), BRIEF, context(boards()), 0)
    with pytest.raises(Exception, match=r"exceeded the time limit of 0.001 s in meta-iteration \d"):
        slow.values(5)
    wild = Learning(CELL, SETTINGS, replace(BRIEF, inner_rate=10.0), context(boards()), 0)
    wild._network.classifier.weight.data.fill_(float("nan"))
    with pytest.raises(Exception, match="diverged: loss is nan in meta-iteration 1"):
        wild.values(2)


CHANGED: dict[str, Any] = {name: getattr(BRIEF, name) + 1 for name in OPTIONS} | {
    "few_shot_transductive": True
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_identity_knows_every_option_but_the_budget(name: str) -> None:
    identities = {
        make_evaluator(few_shot_spec(SETTINGS, few_shot, "data", 5)).identity
        for few_shot in (BRIEF, replace(BRIEF, **{name: CHANGED[name]}))
    }
    assert len(identities) == (1 if name == "meta_iterations" else 2)


def test_an_identity_knows_the_child_the_data_and_the_tasks() -> None:
    specs = [
        few_shot_spec(SETTINGS, BRIEF, "data", 5),
        few_shot_spec(replace(SETTINGS, filters=5), BRIEF, "data", 5),
        few_shot_spec(replace(SETTINGS, repeats=2), BRIEF, "data", 5),
        few_shot_spec(SETTINGS, BRIEF, "other", 5),
        few_shot_spec(SETTINGS, BRIEF, "data", 6),
    ]
    assert len({make_evaluator(spec).identity for spec in specs}) == 5
    same = few_shot_spec(replace(SETTINGS, epochs=9, learning_rate=0.3, threads=2), BRIEF, "data", 5)
    assert make_evaluator(same).identity == make_evaluator(specs[0]).identity


@pytest.mark.parametrize("name", OPTIONS)
def test_its_options_are_of_no_other_evaluator(name: str) -> None:
    text = f"{option_name(name)} is an option of --evaluator reptile, the evaluator is train"
    with pytest.raises(ConfigError, match=text):
        SearchConfig(**{name: CHANGED[name]})
    value = [] if name == "few_shot_transductive" else [str(getattr(SearchConfig, name))]
    with pytest.raises(ConfigError, match=text):
        parse([option_name(name), *value])
    changed = [str(CHANGED[name])] if value else []
    given = parse(["--evaluator", "reptile", option_name(name), *changed]).config
    assert getattr(given, name) == CHANGED[name] != getattr(SearchConfig, name)


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_options_of_ordinary_training_are_refused(name: str) -> None:
    default = getattr(SearchConfig, name)
    value = [] if isinstance(default, bool) or name == "flip" else [str(default)]
    for parsed in (parse, lambda words: parse_comparison([*words, "--out", "nowhere"])):
        with pytest.raises(ConfigError, match=f"{option_name(name)} is no option of --evaluator reptile"):
            parsed(["--evaluator", "reptile", option_name(name), *value])


@pytest.mark.parametrize("option", ["plan", "profile"])
def test_what_tries_ordinary_children_is_refused(option: str) -> None:
    with pytest.raises(ConfigError, match=f"--{option} with --evaluator reptile"):
        parse(["--evaluator", "reptile", f"--{option}"])


def test_other_searches_are_the_runs_they_were() -> None:
    config = SearchConfig(seed=3)
    before = {name: value for name, value in config.values().items() if name not in OPTIONS}
    assert SearchConfig.from_values(before) == config
    told = {name: value for name, value in config.identity().items() if name not in SearchConfig.SINCE}
    assert set(OPTIONS) <= set(SearchConfig.SINCE)
    assert config.digest("x") == short_digest(told, "x")
    few_shot = SearchConfig(evaluator="reptile", meta_iterations=7)
    assert few_shot.digest("x") != replace(few_shot, meta_iterations=8).digest("x")
    assert few_shot.difference(replace(few_shot, meta_iterations=8)) == ["--meta-iterations 7 -> 8"]


def test_a_standard_error_is_that_of_the_tasks() -> None:
    values = [{"accuracy": 0.7, "accuracy_error": 0.02}, {"accuracy": 0.8, "accuracy_error": 0.04}]
    finals = [Trial(n, Proposal(CELL, 1, n), Measurement("done", v)) for n, v in enumerate(values)]
    finalist = Finalist(finals[0], tuple(finals))
    expected = math.sqrt(np.var([0.7, 0.8], ddof=1) / 2 + 0.03**2)
    assert finalist.standard_error("accuracy", "validation_images") == pytest.approx(expected)


def test_a_data_set_with_too_few_classes_ends_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    for command in (main, compare):
        assert command(["--evaluator", "reptile", "--data", "digits", "--out", str(out)]) == 2
        assert "allowed are tasks of 2 to 2" in capsys.readouterr().err
        assert not out.exists()


@pytest.mark.slow
def test_the_page_s_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[1] / "docs" / "few-shot.md").read_text("utf-8")
    (command,) = re.findall(r"^```sh\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    words = shlex.split(command.replace("\\\n", " "))
    assert words[:3] == ["python", "-m", "pnas_fast.search"]
    monkeypatch.chdir(tmp_path)
    found = []
    for workers in (1, 2):
        out = words.index("--out") + 1
        asked = [*words[3:out], f"few-shot-{workers}", *words[out + 1 :], "--workers", str(workers)]
        assert main([*asked, "--finalists", "0"] if workers == 2 else asked) == 0
        found.append(SearchResult.load(f"few-shot-{workers}").record)
    shown = capsys.readouterr().out
    assert "on validation classes" in shown
    assert "on test classes, the same trainings" in shown
    trials, fewer = found[0].trials, found[1].trials
    assert len(trials) == len(fewer)
    assert found[0].finals
    for one, two in zip(trials, fewer, strict=True):
        assert one.cell == two.cell
        assert [one.value(name) for name in ("accuracy", "accuracy_error", "loss")] == [
            two.value(name) for name in ("accuracy", "accuracy_error", "loss")
        ]
    assert RunView(found[0]).standard_error(trials[0]) == trials[0].value("accuracy_error")
    assert all(0 <= final.value("test_accuracy") <= 1 for final in found[0].finals)
    text = (tmp_path / "few-shot-1" / "report.html").read_text("utf-8")
    assert "on test classes, which chose nothing" in text


@pytest.mark.slow
def test_a_comparison_says_what_its_children_learned_from(tmp_path: Path) -> None:
    line = (
        "--evaluator reptile --data digits --few-shot-ways 2 --few-shot-tasks 3 --meta-iterations 2 "
        "--adaptation-iterations 2 --filters 2 --strategies random --repeats 1 --budget 1 --blocks 1 "
        "--finalists 0"
    )
    assert compare([*line.split(), "--out", str(tmp_path / "out")]) == 0
    found = rigour_of(Comparison([RunRecord.load(tmp_path / "out" / "runs" / "random-0")]))
    told = {point["what"]: point["found"] for point in found}
    assert told["same children"] == "B 1, N 1, F 2, meta-iterations 2, evaluator reptile"
    assert told["data"] == "digits, 3 tasks of validation classes"
