"""Weights files: what they say of themselves is checked before anything is built of it."""

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pnas_fast import SearchConfig
from pnas_fast.data import load
from pnas_fast.engine import TrainingSettings
from pnas_fast.evaluation import build_child
from pnas_fast.network import Layout
from pnas_fast.runs import weights
from pnas_fast.runs.store import TrialStore
from pnas_fast.runs.weights import WeightsError, digest, load_child, save_child
from pnas_fast.space import Cell
from pnas_fast.zoo import from_run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    child = build_child(
        Cell.parse("0:sep3x3+1:identity"), TrainingSettings(filters=4), load("synthetic:8x8x3/4"), seed=1
    )
    save_child(child, load("synthetic:8x8x3/4"), tmp_path / "best.safetensors")
    return tmp_path / "best.safetensors"


def described(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        found: dict[str, Any] = json.loads(file.metadata()["network"])
    return found


def with_metadata(path: Path, text: str) -> None:
    save_file(load_file(path), path, {"network": text})


def test_a_digest_is_the_sha256_of_the_file(path: Path) -> None:
    assert digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(WeightsError, match=r"none: cannot be read"):
        digest(path.parent / "none")


def test_a_file_is_read_where_its_digest_is_the_one_expected(path: Path) -> None:
    known = digest(path)
    wanted = load_file(path)
    network = load_child(path, expected=known)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in network.state_dict().items())
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    load_child(path)  # nobody who has no digest can know
    with pytest.raises(
        WeightsError, match=r"best\.safetensors: its SHA-256 is \w{16}…, expected \w{16}…: it was"
    ):
        load_child(path, expected=known)


def test_reading_takes_as_many_random_numbers_as_building(path: Path) -> None:
    """Whoever trains after it goes on as before."""
    torch.manual_seed(0)
    network = load_child(path)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    type(network)(network.genotype, network.layout, 4, network.image_shape)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("null", "Expected `object`, got `null`"),
        ('"text"', "Expected `object`, got `str`"),
        ("", "truncated"),
        ("[" * 100_000, "Expected `object`, got `array`"),
        ('{"normal":' + "[" * 100_000, "Expected `str`, got `array`"),
        ('{"a":' * 100_000, "unknown field `a`"),
    ],
)
def test_metadata_of_another_kind_are_refused(text: str, said: str, path: Path) -> None:
    with_metadata(path, text)
    with pytest.raises(WeightsError) as caught:
        load_child(path)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{path}: not the weights of a network that can be built (")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("where", "values", "said"),
    [
        ("layout", {"repeats": 10**9}, "Expected `int` <= 100"),
        ("layout", {"repeats": 10**400}, "Expected `int` <= 100"),
        ("layout", {"repeats": 0}, "Expected `int` >= 1"),
        ("layout", {"repeats": 1.5}, "Expected `int`, got `float`"),
        ("layout", {"filters": 2**40}, "Expected `int` <= "),
        ("layout", {"norm_momentum": "x"}, "Expected `float`, got `str`"),
        ("layout", {"norm_epsilon": -1}, "Expected `float` >= 0"),
        ("layout", {"dropout": 2}, "Expected `float` <= 1"),
        ("layout", {"stem": "other"}, "Invalid enum value 'other'"),
        ("layout", {"previous_projections": 10**6}, "Expected `int` <= 16"),
        ("layout", {"width": 3}, "unknown field `width`"),
        ("", {"layout": None}, "Expected `object`, got `null`"),
        ("", {"classes": 10**12}, "Expected `int` <= "),
        ("", {"image_shape": [3, 8]}, "Expected `array` of length 3"),
        ("", {"image_shape": [3, 10**9, 8]}, "Expected `int` <= 65536"),
        ("", {"normal": 5}, "Expected `str`, got `int`"),
        ("", {"normal": "0:sep3x3"}, "not the weights of a network that can be built"),
    ],
)
def test_values_outside_their_limits_are_refused(
    where: str, values: dict[str, Any], said: str, path: Path
) -> None:
    found = described(path)
    (found[where] if where else found).update(values)
    with_metadata(path, json.dumps(found))
    with pytest.raises(WeightsError) as caught:
        load_child(path)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("where", "values"),
    [
        ("layout", {"repeats": 100, "filters": 2**20}),  # a petabyte, if it were built
        ("layout", {"filters": 8}),
        ("layout", {"stem": "imagenet"}),
        ("", {"classes": 5}),
        ("", {"image_shape": [1, 8, 8]}),
        ("", {"normal": "0:sep3x3+1:sep3x3"}),
    ],
)
def test_another_network_than_the_tensors_of_is_refused_before_it_is_built(
    where: str, values: dict[str, Any], path: Path
) -> None:
    found = described(path)
    (found[where] if where else found).update(values)
    with_metadata(path, json.dumps(found))
    with pytest.raises(WeightsError, match="tensors are not those of its network, such as"):
        load_child(path)


@pytest.mark.parametrize("change", ["missing", "more", "type", "shape"])
def test_tensors_of_another_name_type_or_shape_are_refused(change: str, path: Path) -> None:
    state, text = load_file(path), json.dumps(described(path))
    name = "classifier.weight"
    if change == "missing":
        del state[name]
    elif change == "more":
        state["classifier.extra\x1b"] = torch.zeros(1)
    elif change == "type":
        state[name] = state[name].double()
    else:
        state[name] = state[name].T.contiguous()
    save_file(state, path, {"network": text})
    with pytest.raises(
        WeightsError, match=r"1 tensors are not those of its network, such as classifier"
    ) as caught:
        load_child(path)
    assert str(caught.value).isprintable()


def test_the_schema_has_every_field_of_a_layout() -> None:
    schema = weights._Layout
    assert schema.__struct_fields__ == tuple(field.name for field in fields(Layout))
    assert schema(repeats=1, filters=1) == schema(
        **{field.name: getattr(Layout(repeats=1, filters=1), field.name) for field in fields(Layout)}
    )


def test_a_run_knows_the_weights_that_its_search_wrote(path: Path) -> None:
    folder = path.parent
    SearchConfig(device="cpu").save(folder / "config.json")
    with TrialStore(folder / "trials.sqlite", write=True) as store:
        store.set_fact("weights_digest", f"{digest(path)},{'0' * 64}")
    from_run(folder)
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="was changed or damaged since it was written"):
        from_run(folder)
