"""Evaluators: what they measure, what changes their identity, and what a user's mistakes come to."""

import gzip
import json
from collections.abc import Callable
from dataclasses import fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, recall_score

from faulty import Source
from pnas_fast.engine import TrainingSettings, evaluate
from pnas_fast.engine.settings import LATER
from pnas_fast.evaluation import build_child, train_child
from pnas_fast.evaluation.function import Function, function_spec, name_of
from pnas_fast.evaluation.guard import make_evaluator, measure
from pnas_fast.evaluation.probe import Probe, as_result, probe_spec
from pnas_fast.evaluation.table import Table, table_spec, write_table
from pnas_fast.evaluation.train import NO_IDENTITY, Train, plain_settings, train_spec, training_identity
from pnas_fast.executors.inline import InlineExecutor
from pnas_fast.network import Genotype
from pnas_fast.protocols import (
    Context,
    Drained,
    Evaluator,
    EvaluatorError,
    Finished,
    MachineError,
    Measurement,
    Proposal,
    Spec,
    Started,
    Task,
    Trial,
    child_seed,
)
from pnas_fast.runs.weights import child_file, load_child
from pnas_fast.space import Cell
from user_functions import RETURNED, counts

SETTINGS = TrainingSettings(filters=4, epochs=3, batch=32, train_images=128, device="cpu")
CELL = Cell.parse("0:sep3x3+1:max_pool3x3")
SWAPPED = Cell.parse("1:max_pool3x3+0:sep3x3")


def context(folder: Path, seed: int = 7, report: Callable[[int], None] = lambda images: None) -> Context:
    return Context(5, seed, Source().open(), "cpu", folder, report)


def test_training_is_that_of_the_canonical_cell_for_the_budget(tmp_path: Path) -> None:
    seen: list[int] = []
    evaluator = Train(plain_settings(SETTINGS), "digits")
    found = evaluator.measure(Proposal(SWAPPED, 2), context(tmp_path, report=seen.append))
    result, _ = train_child(CELL, replace(SETTINGS, epochs=2), Source().open(), 7)
    assert found.done
    assert found.values["accuracy"] == result.accuracy
    assert found.values["validation_loss"] == result.validation_loss
    assert found.curves == {"loss": tuple(result.epoch_losses)}
    assert seen == [128, 256]
    assert set(found.values) == {
        "accuracy", "validation_loss", "loss", "seconds", "evaluation_seconds", "images_per_second",
        "images_seen", "parameters", "multiply_adds", "validation_images", "balanced_accuracy",
    }  # fmt: skip
    assert load_child(child_file(tmp_path, 5)).genotype == Genotype.of(CELL)


def test_test_images_are_measured_besides_and_change_nothing_else(tmp_path: Path) -> None:
    data = Source().open()
    images, labels = data.validation_images[:50].flip(3), data.validation_labels[:50]
    tested = replace(data, test_images=images, test_labels=labels)
    plain, more = (
        Train(plain_settings(SETTINGS), "x", tests).measure(
            Proposal(CELL, 1), replace(context(tmp_path), data=tested)
        )
        for tests in (False, True)
    )
    assert set(more.values) - set(plain.values) == {
        "test_accuracy", "test_balanced_accuracy", "test_loss", "test_images",
    }  # fmt: skip
    assert more.values["accuracy"] == plain.values["accuracy"]
    network = load_child(child_file(tmp_path, 5))
    expected = evaluate(network, tested.tested())
    assert more.values["test_accuracy"] == expected.correct / 50
    assert more.values["test_loss"] == pytest.approx(expected.loss, rel=1e-5)
    assert identity(train_spec(SETTINGS, "x", True)) != identity(train_spec(SETTINGS, "x"))


def test_a_final_training_has_the_recall_of_each_class(tmp_path: Path) -> None:
    data = Source().open()
    few = data.validation_labels < 9  # of a class without images nobody knows its recall
    tested = replace(data, test_images=data.validation_images[few], test_labels=data.validation_labels[few])
    final = Proposal(CELL, 1, 0, {"final": 1})
    values = (
        Train(plain_settings(SETTINGS), "x").measure(final, replace(context(tmp_path), data=tested)).values
    )
    images = (data.validation_images.float() - data.mean[:, None, None]) / data.std[:, None, None]
    answers = load_child(child_file(tmp_path, 5)).eval()(images).argmax(1).numpy()
    truth = data.validation_labels.numpy()
    recalls = recall_score(truth, answers, average=None, zero_division=0)
    assert [values[f"recall_{number}"] for number in range(10)] == pytest.approx(recalls)
    assert values["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, answers))
    assert [values[f"test_recall_{number}"] for number in range(9)] == pytest.approx(recalls[:9])
    assert values["test_balanced_accuracy"] == pytest.approx(recalls[:9].mean())
    assert "test_recall_9" not in values


def test_a_child_that_fails_leaves_what_is_known(tmp_path: Path) -> None:
    evaluator = Train(plain_settings(replace(SETTINGS, time_limit=0.001)), "digits")
    found = evaluator.measure(Proposal(CELL, 2), context(tmp_path))
    assert found.error == "exceeded the time limit of 0.001 s in epoch 1"
    assert found.values["parameters"] > 0
    assert "accuracy" not in found.values
    assert "loss" not in found.values
    assert not (tmp_path / "children").exists()


@pytest.mark.parametrize("name", [item.name for item in fields(TrainingSettings)])
def test_an_identity_changes_with_what_changes_results(name: str) -> None:
    others: dict[str, Any] = {
        "data": "cifar10:/elsewhere", "optimizer": "rmsprop", "backend": "cpu", "precision": "bf16",
        "device": "cuda", "cache": "/elsewhere", "skip_unreadable": True,
        "flip": "no", "class_weights": "balanced",
    }  # fmt: skip
    mine = getattr(SETTINGS, name)
    changed = replace(SETTINGS, **{name: others.get(name) or (mine + 1 if isinstance(mine, int) else 0.25)})
    if name == "device":
        changed = replace(changed, precision="fp32")
    same = identity(train_spec(SETTINGS, "x")) == identity(train_spec(changed, "x"))
    assert same == (name in NO_IDENTITY)


def test_an_identity_is_what_it_was_before_a_setting_was_there() -> None:
    plain = plain_settings(SETTINGS)
    old = {name: value for name, value in plain.items() if name not in NO_IDENTITY | set(LATER)}
    text = json.dumps(["train", old, "x", ""], sort_keys=True)
    assert training_identity("train", SETTINGS, "x") == sha256(text.encode()).hexdigest()


def identity(spec: Spec) -> str:
    return make_evaluator(Spec(spec.name, json.loads(json.dumps(spec.settings)))).identity


def test_identities_know_data_precision_and_kind(tmp_path: Path) -> None:
    base = identity(train_spec(SETTINGS, "x"))
    assert identity(train_spec(SETTINGS, "y")) != base
    assert identity(train_spec(replace(SETTINGS, precision="fp32"), "x")) == base  # what auto means here
    name = "user_functions:counts"
    assert identity(function_spec(name, SETTINGS, "x")) != base
    assert identity(function_spec(name, SETTINGS, "x")) == identity(function_spec(name, SETTINGS, "x", "3"))
    assert identity(function_spec(name, SETTINGS, "x", "4")) != identity(function_spec(name, SETTINGS, "x"))
    assert identity(probe_spec(SETTINGS, 0.1)) != base


def test_longer_children_are_more_effort() -> None:
    spec = train_spec(SETTINGS, "x")
    long = Cell.parse("0:conv1x7_7x1+1:sep7x7")
    assert make_evaluator(spec).effort(long) > make_evaluator(spec).effort(CELL) > 0


def test_a_probe_is_an_evaluator(tmp_path: Path) -> None:
    found = Probe(plain_settings(SETTINGS), 0.01).measure(Proposal(CELL, 1), context(tmp_path))
    result = as_result(found)
    assert result.status == "done"
    assert result.images_per_second > 0
    assert result.images_seen % 32 == 0
    assert list(tmp_path.iterdir()) == []


def function(name: str) -> Evaluator:
    return Function(f"user_functions:{name}", plain_settings(SETTINGS), "digits")


def test_a_users_function_is_given_network_data_and_context(tmp_path: Path) -> None:
    seen: list[int] = []
    found = measure(function("counts"), Proposal(SWAPPED, 9, 2), context(tmp_path, 11, seen.append))
    network = build_child(CELL, SETTINGS, Source().open(), 11)
    assert found.error is None
    first = float(next(network.parameters()).detach().sum())
    wider = found.values["wider"]
    assert wider > network.parameters_count
    assert found.values == {
        "accuracy": 0.5, "parameters": network.parameters_count, "wider": wider, "epochs": 9, "seed": 11,
        "replica": 2, "first": first,
    }  # fmt: skip
    assert seen == [128]
    assert found.device == "cpu"


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (0, {"accuracy": 0.25}),
        (1, {"accuracy": 1}),
        (2, {"accuracy": 0.5}),
        (3, {"accuracy": 0.75, "latency_ms": 3}),
        (4, "accuracy is nan"),
        (5, "returned text, allowed are a number and a dict of numbers"),
        (6, "returned nothing, allowed are a number and a dict of numbers"),
        (7, "returned list, allowed are a number and a dict of numbers"),
        (8, "returned bool, allowed are a number and a dict of numbers"),
        (9, "accuracy is 1.5, allowed are 0 to 1"),
        (10, "returned no accuracy, only loss"),
        (11, "returned no accuracy, only an empty dict"),
        (12, "sizes is a list, allowed is a finite number"),
        (13, "note is text, allowed is a finite number"),
        (14, "returned a dict with the key 3, allowed is text"),
        (15, "accuracy is inf"),
        (16, "accuracy is a Tensor, allowed is a finite number"),
        (17, "accuracy is an int, allowed is a finite number"),
        (18, "returned complex, allowed are a number and a dict of numbers"),
        (19, "accuracy is None, allowed is a finite number"),
    ],
)
def test_what_a_users_function_returns_is_a_measurement_or_one_reason(
    tmp_path: Path, index: int, expected: str | dict[str, float]
) -> None:
    assert index < len(RETURNED)
    found = measure(function("returns"), Proposal(CELL, 1), context(tmp_path, index))
    if isinstance(expected, dict):
        assert (found.status, found.values, found.error) == ("done", expected, None)
        json.dumps(found.values, allow_nan=False)
    else:
        assert (found.status, found.values, found.error) == ("failed", {}, expected)


def test_what_a_users_function_raises_is_one_reason(tmp_path: Path) -> None:
    found = measure(function("diverges"), Proposal(CELL, 1), context(tmp_path))
    assert found.error == "ZeroDivisionError: loss is 0"
    found = measure(function("needs_another_layout"), Proposal(CELL, 1), context(tmp_path))
    assert found.error == (
        "TypeError: build: unknown depth, allowed are repeats, filters, drop_path, backend"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("user_functions:missing", "user_functions has no missing"),
        ("no_such_module:f", r"no_such_module cannot be imported \(ModuleNotFoundError: No module named"),
        ("user_functions", "allowed is package.module:name"),
        ("user_functions:a.b", "allowed is package.module:name"),
        ("user_functions:NOT_A_FUNCTION", "it is 3, which cannot be called"),
        ("__main__:f", "__main__ has no f; worker processes do not see what a notebook .*InlineExecutor"),
    ],
)
def test_a_function_that_is_not_there_is_named(name: str, message: str) -> None:
    with pytest.raises(EvaluatorError, match=message) as caught:
        make_evaluator(function_spec(name, SETTINGS, "x"))
    assert "\n" not in str(caught.value)


def test_functions_are_known_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert name_of(counts) == "user_functions:counts"
    with pytest.raises(EvaluatorError, match=r"<lambda>.*neither a lambda nor .*InlineExecutor"):
        name_of(lambda build, data, context: 0.5)

    def inner(build: Any, data: Any, context: Any) -> float:
        return 0.5

    with pytest.raises(EvaluatorError, match="neither a lambda nor one inside another"):
        name_of(inner)
    import __main__

    monkeypatch.setattr(__main__, "inner", inner, raising=False)
    inner.__module__, inner.__qualname__ = "__main__", "inner"
    with pytest.raises(
        EvaluatorError, match="evaluator inner of a notebook or of the program itself: worker"
    ):
        name_of(inner)
    evaluator = make_evaluator(function_spec("__main__:inner", SETTINGS, "x"))  # in this process it works
    assert isinstance(evaluator, Function)


def test_an_evaluator_that_cannot_be_made_is_named() -> None:
    with pytest.raises(EvaluatorError, match=r"evaluator .*:Train cannot be made: .*batch is 1, allowed"):
        make_evaluator(Spec("pnas_fast.evaluation.train:Train", {"settings": {"batch": 1}, "data": "x"}))
    with pytest.raises(EvaluatorError, match=r"cannot be made: .*unexpected keyword argument 'colour'"):
        make_evaluator(Spec("pnas_fast.evaluation.train:Train", {"colour": "red"}))


class Answers:
    identity = "answers"

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def effort(self, cell: Cell) -> float:
        return 0.0

    def measure(self, proposal: Proposal, context: Context) -> Measurement:
        if isinstance(self._answer, BaseException):
            raise self._answer
        found: Measurement = self._answer
        return found


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (MemoryError(), "out of memory"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to\nallocate"),
            "out of memory: CUDA out of memory",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory: Default"),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling"), "out of memory: CUBLAS"),
        (ValueError("text about being out of memory"), "ValueError: text about"),
        (RecursionError(), "RecursionError"),
        (0.5, "the evaluator returned a float, allowed is a Measurement"),
        (Measurement("done", {"accuracy": 2.0}), "accuracy is 2, allowed are 0 to 1"),
        (Measurement("done", {}, curves={"loss": (1.0, float("nan"))}), "curve loss is nan"),
        (Measurement("failed", {}), "the evaluator gave no reason"),
    ],
)
def test_whatever_an_evaluator_does_is_one_reason(tmp_path: Path, answer: Any, error: str) -> None:
    found = measure(Answers(answer), Proposal(CELL, 1), context(tmp_path))
    assert found.status == "failed"
    assert found.error is not None
    assert found.error.startswith(error)
    assert "\n" not in found.error


def test_faults_of_the_machine_are_not_the_cells(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        measure(Answers(OSError(28, "No space left on device")), Proposal(CELL, 1), context(tmp_path))
    with pytest.raises(EvaluatorError):
        measure(Answers(EvaluatorError("none")), Proposal(CELL, 1), context(tmp_path))


def trials() -> list[Trial]:
    other = Cell.parse("0:identity+1:identity")
    return [
        Trial(0, Proposal(SWAPPED, 2), Measurement("done", {"accuracy": 0.1 + 0.2, "parameters": 7})),
        Trial(1, Proposal(CELL, 2, 1), Measurement("done", {"accuracy": 0.5, "seconds": 1e-9})),
        Trial(2, Proposal(other, 4), Measurement("failed", {}, 'ValueError: "a", b')),
        Trial(3, Proposal(CELL, 2), Measurement("done", {"accuracy": 0.9})),  # the first is taken
    ]


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
def test_a_table_answers_what_was_written(tmp_path: Path, name: str) -> None:
    write_table(tmp_path / name, trials())
    table = make_evaluator(table_spec(tmp_path / name))
    for trial in trials()[:3]:
        found = measure(table, trial.proposal, context(tmp_path))
        assert replace(found, device=None) == trial.measurement
    with pytest.raises(
        EvaluatorError, match=rf"{name}: no measurement of 0:sep3x3.* after 3 epochs, replica 0"
    ):
        measure(table, Proposal(CELL, 3), context(tmp_path))


def test_a_table_may_draw_a_replica_by_the_childs_seed(tmp_path: Path) -> None:
    write_table(tmp_path / "table.csv", trials())
    drawn, asked = (make_evaluator(table_spec(tmp_path / "table.csv", draws)) for draws in (True, False))
    assert drawn.identity != asked.identity
    seeds = {child_seed(seed, Proposal(CELL, 2)): seed for seed in range(20)}
    found = [
        measure(drawn, Proposal(CELL, 2), replace(context(tmp_path), seed=seed)).values["accuracy"]
        for seed in seeds
    ]
    assert set(found) == {0.1 + 0.2, 0.5}
    again = [
        measure(drawn, Proposal(SWAPPED, 2, 5), replace(context(tmp_path), seed=seed)).values["accuracy"]
        for seed in seeds
    ]
    assert again == found
    with pytest.raises(EvaluatorError, match="no measurement of"):
        measure(drawn, Proposal(CELL, 3), context(tmp_path))


def test_searches_of_a_process_read_a_table_once_until_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    write_table(file, trials())
    first = Table(str(file))
    assert Table(str(file))._content is first._content
    write_table(file, trials()[1:])
    assert Table(str(file)).identity != first.identity


def test_a_table_is_known_by_its_content(tmp_path: Path) -> None:
    write_table(tmp_path / "a.csv", trials())
    write_table(tmp_path / "b.csv.gz", trials())
    write_table(tmp_path / "c.csv", trials()[1:])
    identities = [Table(str(tmp_path / name)).identity for name in ("a.csv", "b.csv.gz", "c.csv")]
    assert identities[0] == identities[1] != identities[2]
    assert gzip.decompress((tmp_path / "b.csv.gz").read_bytes()) == (tmp_path / "a.csv").read_bytes()


HEADER = "cell,budget,replica,status,error,accuracy\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: columns are , allowed are cell,budget,replica,status,error"),
        ("cell,accuracy\n", "line 1: columns are cell,accuracy, allowed"),
        (HEADER + "0:nothing+1:identity,1,0,done,,0.5\n", "line 2: .*nothing"),
        (HEADER + "0:identity+1:identity,1,0,done,,nan\n", "line 2: accuracy is nan"),
        (HEADER + "0:identity+1:identity,1,0,done,,many\n", "line 2: could not convert"),
        (HEADER + "0:identity+1:identity,x,0,done,,0.5\n", "line 2: invalid literal"),
        (HEADER + "0:identity+1:identity,1,0,well,,0.5\n", "line 2: status is 'well'"),
        (HEADER + "0:identity+1:identity,1,0,failed,,\n", "line 2: status is 'failed' with error ''"),
        (HEADER + "0:identity+1:identity,1,0,done\n", "line 2: 4 columns, allowed are 6"),
        (
            HEADER + "0:identity+1:identity,1,0,done,,0.5\n1:identity+0:identity,1,0,done,,0.6\n",
            "line 3: another measurement of the same cell",
        ),
        (b"\xff\xfe\x00", "line 1: 'utf-8' codec"),
    ],
)
def test_a_file_that_is_no_table_is_refused_in_a_line(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    file = tmp_path / "table.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(EvaluatorError, match=message) as caught:
        Table(str(file))
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    "content", [None, b"no gzip", gzip.compress(b"x" * 99)[:-9]], ids=["none", "text", "cut"]
)
def test_a_table_that_cannot_be_read_is_refused_in_a_line(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "table.csv.gz"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(EvaluatorError, match=r"table\.csv\.gz: cannot be read"):
        Table(str(file))


def test_in_this_process_tasks_run_when_they_are_asked_for(tmp_path: Path) -> None:
    with InlineExecutor(tmp_path) as executor:
        executor.start(Spec("faulty:Faulty", {}), Source())
        for number, what in enumerate(["works", "is big once", "is big", "raises"]):
            executor.submit(Task(number, Proposal(CELL, 1, note={"do": what}), 50))
        assert [type(event) for event in executor.events()] == [Started]
        events = []
        while happened := list(executor.events()):
            events += happened
        found = {event.task.number: event.measurement for event in events if isinstance(event, Finished)}
        assert [found[number].error for number in range(4)] == [
            None, None, "out of memory: 9 GiB (2 times, the last time alone)",
            "ValueError: this cell is cursed",
        ]  # fmt: skip
        assert [type(event) for event in events].count(Drained) == 1
        executor.submit(Task(9, Proposal(CELL, 1, note={"do": "fills the disk"}), 50))
        assert [type(event) for event in executor.events()] == [Started]
        with pytest.raises(MachineError, match="No space left on device"):
            list(executor.events())
