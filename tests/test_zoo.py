"""The zoo: networks by name, cell and run, the published tables, fetching weights, timm."""

import hashlib
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from pnas_fast.data import load
from pnas_fast.data.download import RemoteFile
from pnas_fast.engine import TrainingSettings
from pnas_fast.evaluation import build_child
from pnas_fast.network import ChildNetwork
from pnas_fast.runs.weights import BEST, save_child
from pnas_fast.space import Cell, CellError
from pnas_fast.zoo import MODELS, ZooError, create_model, download, from_run, list_models, table
from pnas_fast.zoo import timm as zoo_timm
from pnas_fast.zoo.__main__ import main
from pnas_fast.zoo.create import CellStem
from pnas_fast.zoo.models import UNDEFINED

CELL = "0:sep3x3+1:identity"


def test_models_are_listed_by_pattern() -> None:
    assert list_models("pnasnet5_*") == ["pnasnet5_cifar", "pnasnet5_large", "pnasnet5_mobile"]
    assert list_models() == sorted(MODELS)
    assert list_models("nothing") == []


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.image_size == 32])
def test_a_model_of_a_name_classifies(name: str) -> None:
    network = create_model(name).eval()
    with torch.inference_mode():
        assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert network.drop.probability == MODELS[name].drop_path


def test_what_a_name_stands_for_can_be_changed() -> None:
    network = create_model(
        "pnasnet5_cifar", classes=7, image_shape=(1, 20, 24), drop_path=0.1, auxiliary=True
    )
    main, auxiliary = network(torch.randn(2, 1, 20, 24))
    assert main.shape == auxiliary.shape == (2, 7)
    assert network.drop.probability == 0.1


def test_a_cell_is_built_as_its_child_is() -> None:
    torch.manual_seed(0)
    network = create_model(cell=CELL, repeats=2, filters=4, classes=3, image_shape=(3, 9, 9), backend="cpu")
    torch.manual_seed(0)
    child = ChildNetwork(Cell.parse(CELL), 2, 4, 3, (3, 9, 9))
    assert network.backend.name == "cpu"
    assert all(torch.equal(tensor, child.state_dict()[name]) for name, tensor in network.state_dict().items())


def test_a_cell_may_have_any_operation_any_outputs_and_an_imagenet_stem() -> None:
    network = create_model(
        cell="0:conv1x1+1:skip,2:sep3x3+1:identity=>0,3",
        repeats=1,
        filters=8,
        stem="imagenet",
        image_shape=(3, 64, 64),
    )
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, 1000)
    assert len(network.cells) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "pnasnet6"}, "^model 'pnasnet6': allowed are amoebanet_a_cifar .* pnasnet5_mobile$"),
        ({"name": "pnasnet5_cifar", "repeats": 2}, "has its own cell, repeats, filters and stem"),
        ({"name": "pnasnet5_cifar", "stem": "imagenet"}, "has its own cell, repeats, filters and stem"),
        ({"cell": CELL}, "neither a model's name nor cell, repeats and filters together"),
        ({"cell": CELL, "repeats": 1, "filters": 4, "stem": "x"}, "^stem 'x': allowed are cifar imagenet$"),
        ({}, "neither a model's name nor cell, repeats and filters together"),
        ({"name": "pnasnet5_cifar", "pretrained": True}, "no released weights, allowed are pnasnet5_large"),
        ({"name": "pnasnet5_cifar", "pretrained": True, "weights": "x"}, "both given, allowed is one"),
        ({"name": "pnasnet5_mobile", "pretrained": True}, "give weights=FOLDER/model.ckpt$"),
        ({"name": "pnasnet5_cifar", "weights": "nowhere.pth"}, "^nowhere.pth: no such file"),
    ],
)
def test_requests_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ZooError, match=message) as caught:
        create_model(**arguments)
    assert "\n" not in str(caught.value)


def test_other_errors_keep_their_kind() -> None:
    with pytest.raises(CellError, match="unknown operation"):
        create_model(cell="0:sep3x3+1:sep4x4", repeats=1, filters=4)
    with pytest.raises(ValueError, match="classes is 0"):
        create_model("pnasnet5_cifar", classes=0)
    with pytest.raises(ValueError, match="backend 'fast'"):
        create_model("pnasnet5_cifar", backend="fast")


def test_a_runs_best_child_comes_with_its_weights(tmp_path: Path) -> None:
    data, cell = load("synthetic:8x8x3/4"), Cell.parse(CELL)
    child = build_child(cell, TrainingSettings(filters=4), data, seed=1)
    save_child(child, data, tmp_path / BEST)
    found = from_run(tmp_path)
    assert all(torch.equal(tensor, child.state_dict()[name]) for name, tensor in found.state_dict().items())
    larger = create_model(cell=str(found.genotype.normal), repeats=2, filters=8)
    assert larger.genotype == found.genotype


def test_a_run_without_a_child_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"holds no best\.safetensors, expected the folder of a run"):
        from_run(tmp_path)


@pytest.fixture(scope="module")
def rows() -> list[table.Row]:
    return table.rows()


def test_the_table_has_every_network_and_all_figures_as_published(
    rows: list[table.Row], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pnas_fast.zoo.__main__.rows", lambda: rows)
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in MODELS)
    assert all(title in out for title in UNDEFINED)
    assert "86,057,668" in out
    assert "24,937,395,792" in out


def test_differences_have_reasons_only_where_there_are_differences(rows: list[table.Row]) -> None:
    explained = [row.name for row in rows if row.published.mismatch and row.name]
    assert explained == [row.name for row in rows if row.outside]
    assert explained == ["amoebanet_c_mobile", "enas_cifar", "darts_v2_imagenet"]
    largest = max(abs(d) for row in rows if not row.outside for d in row.differences if d is not None)
    assert largest < 0.05
    pnas = [d for row in rows if row.name.startswith("pnasnet5") for d in row.differences if d is not None]
    assert len(pnas) == 5
    assert max(map(abs, pnas)) < 0.01


@pytest.mark.parametrize("figure", ["parameters", "multiply_adds"])
def test_a_figure_that_is_off_fails(
    figure: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = MODELS["pnasnet5_mobile"]
    value = getattr(model.published, figure) * 1.011
    changed = replace(model, published=replace(model.published, **{figure: value}))
    monkeypatch.setattr(table, "MODELS", {"pnasnet5_mobile": changed})
    assert main([]) == 1
    assert "not as published: PNASNet-5 mobile" in capsys.readouterr().err


# Fetching.

Serve = Callable[..., None]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Serve]:
    """A server of one file, which is pnasnet5_large's released one; the home of such files is empty."""
    content = b""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        address = f"http://127.0.0.1:{server.server_port}/file.pth"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()

        def expect(body: bytes, digits: str | None = None) -> None:
            nonlocal content
            content = body
            remote = RemoteFile(address, None, digits or hashlib.sha256(body).hexdigest()[:8])
            monkeypatch.setitem(download.RELEASED, "pnasnet5_large", remote)

        yield expect
        server.shutdown()
        thread.join()


def test_released_weights_are_fetched_once(serve: Serve, tmp_path: Path) -> None:
    serve(b"weights")
    path = download.released_file("pnasnet5_large")
    assert path == tmp_path / "checkpoints" / "file.pth"
    assert path.read_bytes() == b"weights"
    path.write_bytes(b"mine")
    assert download.released_file("pnasnet5_large").read_bytes() == b"mine"


def test_a_wrong_checksum_leaves_nothing(serve: Serve, tmp_path: Path) -> None:
    serve(b"weights", "0bad0bad")
    with pytest.raises(
        ZooError,
        match=r"SHA-256 is \w+, expected one that begins with 0bad0bad; put the file at .*file\.pth yourself",
    ):
        download.released_file("pnasnet5_large")
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_it_says_where_the_file_goes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    remote = RemoteFile("http://127.0.0.1:9/file.pth", None, "00")
    monkeypatch.setitem(download.RELEASED, "pnasnet5_large", remote)
    with pytest.raises(
        ZooError, match=rf"cannot be reached .*; put the file at {tmp_path}/checkpoints/file.pth"
    ):
        create_model("pnasnet5_large", pretrained=True)
    assert list(tmp_path.iterdir()) == []


# timm, which is no dependency: a registry with the two functions of timm.models that are used.


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    fake, models = ModuleType("timm"), ModuleType("timm.models")
    models.register_model = lambda entry: entries.setdefault(entry.__name__, entry)  # type: ignore[attr-defined]
    models.is_model = entries.__contains__  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", fake)
    monkeypatch.setitem(sys.modules, "timm.models", models)
    return entries


def test_timm_builds_every_model_by_its_name(registry: dict[str, Any]) -> None:
    assert zoo_timm.register() == zoo_timm.register() == list_models() == sorted(registry)
    entry = registry["pnasnet5_mobile"]
    assert getattr(sys.modules[entry.__module__], entry.__name__) is entry
    network = entry(
        pretrained=False, num_classes=3, in_chans=1, drop_path_rate=0.2, pretrained_cfg=None, cache_dir=None
    )
    assert network.stem.weight.shape[1] == 1
    assert network.num_classes == network.classifier.out_features == 3
    assert network.drop.probability == 0.2
    settings = network.pretrained_cfg
    assert (settings["crop_pct"], settings["mean"], settings["input_size"]) == (
        0.875,
        (0.5,) * 3,
        (3, 224, 224),
    )


@pytest.mark.parametrize("backend", ["eager", "cpu"])
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_features_and_heads_are_reached_as_in_timm(stem: CellStem, backend: str) -> None:
    network = create_model(
        cell=CELL, repeats=1, filters=8, classes=5, stem=stem, image_shape=(3, 64, 64), backend=backend
    ).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        features = network.forward_features(images)
        logits = network.get_classifier()(features.mean(dim=(2, 3)))
        torch.testing.assert_close(logits, network(images), atol=1e-5, rtol=1e-5)
    assert features.shape[1] == network.num_features == network.get_classifier().in_features
    assert network.num_classes == 5
    network.reset_classifier(7)
    assert network.num_classes == 7
    assert network(images).shape == (2, 7)
    with pytest.raises(ValueError, match="classes is 0, allowed is 1 or more"):
        network.reset_classifier(0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features_only": True}, "features_only is not served, allowed is the classifier"),
        ({"output_stride": 8}, "unknown argument 'output_stride', allowed are pretrained num_classes"),
    ],
)
def test_timm_is_told_what_is_not_served(
    registry: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    zoo_timm.register()
    with pytest.raises(ZooError, match=message):
        registry["pnasnet5_cifar"](**arguments)


def test_without_timm_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm.models", None)
    with pytest.raises(ZooError, match=r"timm cannot be imported .*; install it with: pip install timm"):
        zoo_timm.register()
