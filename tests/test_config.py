"""The configuration: presets, limits, what makes two runs the same, and the command line over it."""

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pnas_fast import OPERATIONS, SearchConfig, run_search
from pnas_fast.cli.options import ConfigError, option_name
from pnas_fast.engine.few_shot import OPTIONS as FEW_SHOT
from pnas_fast.runs.config import short_digest
from pnas_fast.runs.folder import RunError, check_same, default_folder, opened, saved_config
from pnas_fast.search.cli import parse
from pnas_fast.search.command import main
from pnas_fast.search.config import RAISABLE, paper, quick
from pnas_fast.search.parts import budget_of, make_strategy, notes_on
from pnas_fast.search.strategy_options import OPTIONS_OF


def test_the_paper_preset_is_the_papers_search() -> None:
    config = paper()
    assert (config.blocks, config.beam, config.repeats, config.filters, config.epochs) == (5, 256, 2, 24, 20)
    assert config.learning_rate == 0.01
    assert config.data == "cifar10:data/cifar10"
    assert config.operations == OPERATIONS


def test_a_configuration_round_trips_through_its_file(tmp_path: Path) -> None:
    config = replace(paper(), operations=("sep3x3", "identity"), seed=7)
    config.save(tmp_path / "config.json")
    assert SearchConfig.load(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"beam": 0}', '{"beam": 4}', '{"operations": 3}', '{"a": 1, "operations": []}']
)
def test_a_damaged_configuration_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json: not the configuration of a (search|run)"):
        SearchConfig.load(path)


def test_operations_are_checked_and_put_in_order() -> None:
    assert SearchConfig(operations=("identity", "sep3x3")).operations == ("sep3x3", "identity")
    with pytest.raises(ConfigError, match="operations: unknown operation 'conv3x3'"):
        SearchConfig(operations=("conv3x3",))


def test_the_number_of_workers_is_not_part_of_a_runs_identity(tmp_path: Path) -> None:
    config = quick()
    assert config.difference(replace(config, workers=7)) == []
    assert default_folder(config, "data") == default_folder(replace(config, workers=7), "data")
    assert default_folder(config, "data") != default_folder(config, "other data")
    changed = replace(config, beam=9, operations=("sep3x3",))
    assert default_folder(config, "data") != default_folder(changed, "data")
    assert config.difference(changed) == [
        f"--operations {','.join(OPERATIONS)} -> sep3x3",
        f"--beam {config.beam} -> 9",
    ]
    with pytest.raises(RunError, match=r"another configuration \(.*--beam 24 -> 9\); .*choose another --out"):
        check_same(tmp_path, replace(config, beam=24), changed)


@pytest.mark.parametrize("name", RAISABLE)
def test_a_run_may_be_raised_and_not_lowered(name: str, tmp_path: Path) -> None:
    strategy = OPTIONS_OF.get(name, ("progressive",))[0]
    config = replace(quick().for_strategy(strategy), **{name: 4})
    check_same(tmp_path, config, replace(config, **{name: 5}))
    with pytest.raises(RunError, match=f"{option_name(name)} 4 -> 3"):
        check_same(tmp_path, config, replace(config, **{name: 3}))


def test_a_run_is_not_a_path_nor_a_machine(tmp_path: Path) -> None:
    config = quick()
    other: dict[str, Any] = {
        "data": "cifar10:elsewhere", "device": "cuda", "backend": "eager", "precision": "fp16", "threads": 4,
        "time_limit": 1.0, "children_per_gpu": 3, "share": 3,
    }  # fmt: skip
    check_same(tmp_path, config, replace(config, **other))


@pytest.mark.parametrize(
    ("strategy", "values"),
    [
        ("random", {"beam": 9}),
        ("random", {"lag": 2}),
        ("evolution", {"kappa": 1.0}),
        ("progressive", {"budget": 5}),
        ("evolution", {"policy": "table"}),
        ("progressive", {"candidates": 50}),
        ("local", {"predictor": "lstm"}),
        ("bananas", {"refit": "scratch"}),
        ("bananas", {"learn": "loss"}),
    ],
)
def test_an_option_of_another_strategy_is_refused(strategy: str, values: dict[str, Any]) -> None:
    name = next(iter(values))
    with pytest.raises(ConfigError, match=f"--{name} is an option of .*, the strategy is {strategy}"):
        SearchConfig(strategy=strategy, **values)
    # On the command line also where it is the default.
    default = getattr(SearchConfig(), name)
    with pytest.raises(ConfigError, match=f"--{name} is an option of .*, the strategy is {strategy}"):
        parse(["--strategy", strategy, f"--{name}", str(default)])


def test_a_preset_serves_every_strategy() -> None:
    config = parse(["--preset", "paper", "--strategy", "random", "--plan"]).config
    assert (config.strategy, config.blocks, config.beam, config.filters) == ("random", 5, 24, 24)


def test_a_budget_left_open_is_what_progressive_search_would_train() -> None:
    assert budget_of(quick().for_strategy("random")) == 48 + 2 * 24
    assert budget_of(replace(quick().for_strategy("random"), budget=7)) == 7


def test_children_have_the_searchs_seed_or_one_of_their_own() -> None:
    assert SearchConfig(seed=3).children_seed == 3
    assert SearchConfig(seed=3, evaluation_seed=0).children_seed == 0
    assert "evaluation_seed" in SearchConfig().identity()
    with pytest.raises(
        ConfigError, match="--draw-replicas with --evaluator train, allowed is --evaluator table:"
    ):
        SearchConfig(draw_replicas=True)


def test_a_run_is_named_as_before_there_was_cutout_or_class_weights() -> None:
    config = quick()
    old = {name: value for name, value in config.identity().items() if name not in SearchConfig.SINCE}
    # What a GPU's kernels are planned for changes last bits, as threads do.
    assert replace(config, share=4).digest("x") == short_digest(old, "x")
    changes: list[dict[str, Any]] = [{}, {"cutout": 2}, {"class_weights": "balanced"}]
    names = [replace(config, **change).digest("x") for change in changes]
    assert names[0] == short_digest(old, "x")
    assert len(set(names)) == 3
    # Augmentation is known by the data's identity.
    assert replace(config, flip="no", crop_padding=2).digest("x") == names[0]
    assert config.difference(replace(config, cutout=2)) == ["--cutout 0 -> 2"]


def test_a_run_is_created_continued_and_kept_from_others(tmp_path: Path) -> None:
    folder, config = tmp_path / "new" / "run", quick().resolved()
    with opened(folder, config):
        assert saved_config(folder, SearchConfig) == config
        with pytest.raises(RunError, match="in use by another process"), opened(folder, config):
            pass
    with opened(folder, replace(config, workers=3)):
        assert saved_config(folder, SearchConfig) == replace(config, workers=3)
    with pytest.raises(RunError, match="another configuration"), opened(folder, replace(config, seed=1)):
        pass


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(RunError, match="holds other files"):
        saved_config(tmp_path, SearchConfig)
    with pytest.raises(RunError, match="is a file"):
        saved_config(tmp_path / "thesis.txt", SearchConfig)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_a_killed_search_left_before_its_configuration_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / ".config.json.123.tmp").write_text('{"bea')
    assert saved_config(tmp_path, SearchConfig) is None


def test_every_option_changes_its_field() -> None:
    given = {
        "data": "synthetic:8x8x1/10", "train_images": 5, "repeats": 3, "filters": 5, "epochs": 7, "batch": 9,
        "optimizer": "rmsprop", "learning_rate": 0.5, "weight_decay": 0.25, "label_smoothing": 0.125,
        "drop_path": 0.5, "clip": 2.0, "time_limit": 9.5, "threads": 2, "backend": "eager", "device": "cpu",
        "precision": "bf16", "blocks": 4, "first_level": 7, "beam": 11, "operations": ("sep3x3", "identity"),
        "predictor": "lstm", "refit": "scratch", "kappa": 0.5, "learn": "loss", "seed": 3, "workers": 2,
        "children_per_gpu": 0, "strategy": "progressive", "evaluator": "mine:own", "evaluation_seed": 4,
        "test_children": True, "finalists": 2, "final_replicas": 5, "final_epochs": 9,
        "image_size": 8, "skip_unreadable": True, "cache": "somewhere", "crop_padding": 3, "cutout": 2,
        "class_weights": "balanced", "flip": "yes", "loaders": 3, "share": 2,
        "objectives": ("accuracy", "memory"), "limit": ("memory_mib<=5", "parameters<=7"),
        "deploy": "filters=6,image=32", "explore": 0.25,
    }  # fmt: skip
    of_others = {name for name, own in OPTIONS_OF.items() if "progressive" not in own}
    of_others |= {"draw_replicas", "device_file", *FEW_SHOT}
    assert set(given) | of_others == {item.name for item in fields(SearchConfig)}
    arguments = []
    for name, value in given.items():
        text = ",".join(value) if isinstance(value, tuple) else str(value)
        arguments += [f"--{name.replace('_', '-')}", *([] if value in (True, "yes") else [text])]
    assert parse(arguments).config == SearchConfig(**given)
    assert parse([*arguments, "--no-flip"]).config == SearchConfig(**{**given, "flip": "no"})
    line = "--preset quick --device cpu --strategy evolution --budget 9 --lag 2 --population 5 --sample 3"
    config = parse([*line.split(), "--retrain", "--evaluator", "table:file", "--draw-replicas"]).config
    assert config.draw_replicas
    assert (config.budget, config.lag, config.population, config.sample, config.retrain) == (9, 2, 5, 3, True)
    config = parse(["--strategy", "bananas", "--candidates", "30", "--predictor", "lstm"]).config
    assert (config.candidates, config.predictor) == (30, "lstm")


def test_options_of_the_controller() -> None:
    line = "--preset quick --device cpu --strategy controller --budget 9 --lag 2 --policy table"
    config = parse([*line.split(), "--algorithm", "reinforce", "--batch-of-proposals", "4"]).config
    assert (config.budget, config.lag, config.policy, config.algorithm) == (9, 2, "table", "reinforce")
    assert (config.batch_of_proposals, config.controller_rate) == (4, 0.0)
    assert len(notes_on(replace(config, lag=5))) == 2
    assert notes_on(SearchConfig(strategy="controller")) == []
    made, plain = (
        make_strategy(chosen).ask()
        for chosen in (config, replace(config, policy="lstm", controller_rate=0.5))
    )
    assert len(made) == len(plain) == 3
    assert made != plain


def test_fused_takes_the_best_backend_and_out_alone_continues(tmp_path: Path) -> None:
    request = parse(["--fused", "--device", "cpu", "--beam", "25", "--out", str(tmp_path / "run")])
    assert request.config.backend == "cpu"
    assert request.folder is not None
    with opened(request.folder, request.config):
        pass
    assert parse(["--out", str(request.folder)]).config == request.config
    assert parse(["--out", str(request.folder), "--beam", "26"]).config.beam == 26
    with pytest.raises(RunError, match="--beam 25 -> 24"):
        parse(["--out", str(request.folder), "--preset", "quick", "--device", "cpu"])


BAD = [
    ("--blocks 0", "blocks is 0, allowed is 1 to 5"),
    ("--blocks 6", "blocks is 6, allowed is 1 to 5"),
    ("--beam 0", "beam is 0"),
    ("--beam many", "--beam: invalid int value: 'many'"),
    ("--operations sep3x3,sep4x4", "unknown operation 'sep4x4', allowed are sep3x3"),
    ("--operations sep3x3,sep3x3", "twice"),
    ("--strategy hope", "strategy is 'hope', allowed are progressive random evolution controller"),
    ("--strategy random --beam 3", "--beam is an option of progressive, the strategy is random"),
    (
        "--budget 3",
        "--budget is an option of random, evolution, controller, local and bananas, the strategy is prog",
    ),
    ("--lag -1 --strategy evolution", "lag is -1"),
    ("--strategy controller --policy tree", "policy is 'tree', allowed are lstm table"),
    ("--strategy controller --algorithm a2c", "algorithm is 'a2c', allowed are ppo reinforce"),
    ("--strategy controller --controller-rate nan", "controller_rate is nan, allowed is 0 to 10"),
    ("--strategy controller --batch-of-proposals 0", "batch_of_proposals is 0, allowed is 1 to"),
    ("--strategy evolution --controller-rate 0", "--controller-rate is an option of controller"),
    ("--strategy local --sample 3", "--sample is an option of evolution, the strategy is local"),
    ("--strategy bananas --candidates 9", "candidates is 9, allowed is 10 to"),
    (
        "--evaluator guess",
        "evaluator is 'guess', allowed are train, reptile, table:FILE and package.module:function",
    ),
    ("--evaluator nowhere.at_all:f", "nowhere"),
    ("--evaluator table:{tmp}/none.csv", "none.csv"),
    ("--beam 1" + 400 * "0", "beam is 1"),
    ("--kappa 1e400", "kappa is inf"),
    ("--predictor forest", "predictor is 'forest', allowed are mlp lstm paths"),
    ("--refit never", "refit is 'never', allowed are finetune scratch"),
    ("--learn error", "learn is 'error', allowed are accuracy loss"),
    ("--kappa -0.5", "kappa is -0.5, allowed is 0 to"),
    ("--kappa nan", "kappa is nan, allowed is 0 to"),
    ("--kappa much", "--kappa: invalid float value: 'much'"),
    ("--seed -1", "seed is -1"),
    ("--data imagenet", "'imagenet' is unknown, allowed are digits"),
    ("--data cifar10:{tmp}/nowhere", "nowhere: is no folder"),
    ("--data synthetic:0x8x1/10", "height 0"),
    ("--train-images -1", "train_images is -1"),
    ("--train-images 99999", "digits: 99999 training images asked for, allowed are 1 to 1437"),
    ("--repeats 0", "repeats is 0"),
    ("--filters 0", "filters is 0"),
    ("--drop-path 1", "drop_path is 1.0"),
    ("--epochs 0", "epochs is 0"),
    ("--batch 1", "batch is 1, allowed is 2 to"),
    ("--optimizer adam", "optimizer is 'adam', allowed are sgd rmsprop"),
    ("--learning-rate 0", "learning_rate is 0"),
    ("--learning-rate nan", "learning_rate is nan"),
    ("--weight-decay -1", "weight_decay is -1"),
    ("--label-smoothing 1", "label_smoothing is 1"),
    ("--clip inf", "clip is inf"),
    ("--time-limit 0", "time_limit is 0"),
    ("--backend warp", "backend is 'warp', allowed are auto eager"),
    ("--device tpu", "device is 'tpu', allowed are auto cpu cuda"),
    ("--workers -1", "workers is -1"),
    ("--children-per-gpu -1", "children_per_gpu is -1"),
    ("--device cpu --children-per-gpu 4", "children_per_gpu is 4 on cpu, allowed is 0: see --workers"),
    ("--profile best", "--profile best: neither a number nor a cell (block 0: 'best' is not of the form"),
    ("--threads 0", "threads is 0"),
    ("--preset huge", "--preset: invalid choice: 'huge'"),
    ("--fused --backend eager", "--fused with --backend eager"),
    ("--bea 3", "unrecognized arguments: --bea 3"),
    ("more", "unrecognized arguments: more"),
    ("--out", "--out: expected one argument"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[line for line, _ in BAD])
def test_bad_input_is_one_line_and_status_2_and_writes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status = main(line.format(tmp=tmp_path).split())
    except SystemExit as stop:
        status = int(stop.code or 0)
    output, errors = capsys.readouterr()
    assert status == 2
    assert message in errors
    assert errors.count("\n") == 1
    assert errors.startswith("python -m pnas_fast.search: error: ")
    assert output == ""
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_missing_is_an_error_and_one_left_open_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device is cuda, allowed is cpu: this machine has no CUDA GPU"):
        parse(["--device", "cuda", "--plan"])
    assert parse(["--preset", "quick"]).note == (
        "device auto: torch sees no CUDA GPU here, children train on the CPU"
    )
    assert parse(["--device", "cpu"]).note is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    request = parse(["--preset", "quick"])
    assert (request.config.device, request.note) == ("cuda", None)
    with pytest.raises(ConfigError, match="workers is 3 on cuda, allowed is 0: --children-per-gpu"):
        parse(["--workers", "3"])


def test_a_search_for_a_cluster_may_name_a_device_that_only_other_hosts_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = parse(["--executor", "ray", "--device", "cuda"]).config
    assert (config.device, config.precision) == ("cuda", "auto")
    assert parse(["--executor", "ray", "--device", "cuda", "--precision", "fp16"]).config.precision == "fp16"
    request = parse(["--executor", "ray"])
    assert (request.config.device, request.note) == (
        "cpu",
        "device auto: torch sees no CUDA GPU here, children train on the CPU; "
        "--device cuda trains on those of other hosts",
    )
    with pytest.raises(ConfigError, match="workers is 3 on cuda"):
        replace(quick(), device="cuda", workers=3).resolved(elsewhere=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"executor": "slurm"}, "executor is 'slurm', allowed are local and ray"),
        ({"max_children": 3}, "ray_address and max_children with executor local, allowed is ray"),
        ({"ray_address": "here:1"}, "ray_address and max_children with executor local, allowed is ray"),
        ({"executor": "ray", "max_children": -1}, "--max-children is -1, allowed is a number from 1"),
        ({"executor": "ray", "ray_address": "a b"}, "--ray-address is 'a b', allowed are auto, local and"),
        (
            {"executor": "ray", "config": replace(quick(), evaluator="table:x")},
            "executor ray with evaluator table:x, allowed are",
        ),
    ],
)
def test_a_cluster_that_a_program_cannot_have_is_an_error(
    given: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        run_search(out=tmp_path / "run", progress=False, **given)
    assert not (tmp_path / "run").exists()


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    output = capsys.readouterr().out
    others = ["out", "plan", "download", "fused", "preset", "profile", "retry_failed"]
    for name in [*(item.name for item in fields(SearchConfig)), *others]:
        assert f"--{name.replace('_', '-')}" in output


def test_runs_from_before_there_was_a_share_were_planned_for_whole_gpus() -> None:
    values = quick().values()
    assert values.pop("share") == 0
    assert SearchConfig.from_values(values).share == 1
    assert SearchConfig.from_values(values | {"share": 4}).share == 4
