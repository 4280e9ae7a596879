"""Released weights: the same network from every layout of files, and files that are refused."""

import copy
import pickle
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from oracle import relative_error
from pnas_fast.network import CellNetwork, Layout
from pnas_fast.zoo import ZooError, create_model
from pnas_fast.zoo.genotypes import PNASNET5
from pnas_fast.zoo.released import load_released
from reference_pnasnet import ReferencePNASNet, perturb
from released_files import of_author, of_slim
from tensor_bundle_writer import write_bundle

pytestmark = pytest.mark.slow

BOUND = 1e-4
SIZES = [64, 97]
"""Even, where padding is one-sided in most reductions, and odd."""

SMALL = Layout(
    repeats=2, filters=12, stem="imagenet", stem_filters=8, norm_epsilon=1e-3, norm_momentum=3e-4, dropout=0.5
)

State = dict[str, Tensor]


def small(classes: int = 1000, *, auxiliary: bool = False) -> CellNetwork:
    return CellNetwork(PNASNET5, SMALL, classes, (3, 96, 96), auxiliary=auxiliary).eval()


@pytest.fixture(scope="module")
def reference() -> ReferencePNASNet:
    torch.manual_seed(0)
    network = ReferencePNASNet(SMALL.repeats, SMALL.filters, 8, classes=1001).eval()
    perturb(network)
    return network


@pytest.fixture
def state(reference: ReferencePNASNet) -> State:
    return dict(reference.state_dict())


Write = Callable[[State, Path], Path]


def write_pth(state: State, folder: Path) -> Path:
    torch.save(state, folder / "weights.pth")
    return folder / "weights.pth"


def write_old_pth(state: State, folder: Path) -> Path:
    """The format of 2018, before PyTorch's files were zip archives, without counters of batches."""
    kept = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(kept, folder / "old.pth", _use_new_zipfile_serialization=False)
    return folder / "old.pth"


def write_safetensors(state: State, folder: Path) -> Path:
    save_file(state, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def write_author(state: State, folder: Path) -> Path:
    return write_pth(of_author(state), folder)


def write_slim(state: State, folder: Path) -> Path:
    left: dict[str, npt.NDArray[Any]] = {
        "global_step": np.array(5, np.int64),
        "conv0/weights/ExponentialMovingAverage": np.zeros(3, np.float32),
        "conv0/weights/RMSProp_1": np.zeros(3, np.float32),
        "aux_7/aux_logits/FC/biases": np.zeros(3, np.float32),
    }
    write_bundle(folder / "model.ckpt", of_slim(state) | left)
    return folder / "model.ckpt"


WRITERS = [write_pth, write_old_pth, write_safetensors, write_author, write_slim]


def loaded(network: CellNetwork, path: Path) -> CellNetwork:
    load_released(network, path)
    return network


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("size", SIZES)
def test_every_layout_gives_the_references_logits(
    write: Write, size: int, reference: ReferencePNASNet, state: State, tmp_path: Path
) -> None:
    path = write(state, tmp_path)
    images = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        expected = reference(images)
        assert relative_error(loaded(small(1001), path)(images), expected) < BOUND
        # Without the background, which is the first class.
        assert relative_error(loaded(small(1000), path)(images), expected[:, 1:]) < BOUND


def test_the_index_of_a_checkpoint_names_it_too(state: State, tmp_path: Path) -> None:
    path = write_slim(state, tmp_path)
    network = loaded(small(1001), path.with_name("model.ckpt.index"))
    assert torch.equal(network.get_parameter("stem.weight"), state["conv_0.conv.weight"])


@pytest.mark.parametrize("auxiliary", [False, True])
def test_our_own_files_load_with_or_without_the_auxiliary_classifier(auxiliary: bool, tmp_path: Path) -> None:
    trained = small(5, auxiliary=True)
    perturb(trained)
    wanted = trained.state_dict()
    network = loaded(small(5, auxiliary=auxiliary), write_safetensors(wanted, tmp_path))
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in network.state_dict().items())


def test_the_large_network_gives_the_references_logits(tmp_path: Path) -> None:
    """The released file's own size: 1,380 tensors, 86 million parameters, 1,001 classes."""
    with torch.device("meta"):
        reference = ReferencePNASNet(4, 216, 96, classes=1001)
    reference = reference.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in reference.named_parameters():
        # As uniform, of the usual variance: normal numbers take longer.
        bound = (6 / max(parameter[0].numel(), 1)) ** 0.5 if parameter.ndim > 1 else 0.1
        assert name
        parameter.detach().uniform_(-bound, bound, generator=generator)
    for name, buffer in reference.named_buffers():
        if name.endswith("num_batches_tracked"):
            buffer.zero_()
    perturb(reference)
    state = dict(reference.state_dict())
    assert len(state) == 1380
    network = create_model("pnasnet5_large", weights=write_safetensors(state, tmp_path)).eval()
    for size in SIZES:
        images = torch.randn(1, 3, size, size)
        with torch.inference_mode():
            assert relative_error(network(images), reference(images)[:, 1:]) < BOUND


def save_bundle(arrays: State, folder: Path) -> Path:
    write_bundle(folder / "model.ckpt", {name: np.asarray(array) for name, array in arrays.items()})
    return folder / "model.ckpt"


LAYOUTS = pytest.mark.parametrize(
    ("convert", "save"), [(dict, write_pth), (of_author, write_pth), (of_slim, save_bundle)]
)


@LAYOUTS
@pytest.mark.parametrize("place", [1, 100, -1])
def test_a_missing_tensor_is_named(
    convert: Callable[[State], State], save: Write, place: int, state: State, tmp_path: Path
) -> None:
    held = convert(
        {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    )
    name = list(held)[place]
    del held[name]
    with pytest.raises(ZooError, match=f"does not fit this network; missing: {name}$"):
        load_released(small(1001), save(held, tmp_path))


@LAYOUTS
def test_a_tensor_too_many_is_named(
    convert: Callable[[State], State], save: Write, state: State, tmp_path: Path
) -> None:
    held = convert(state)
    name = list(held)[7]
    held[f"{name}_more"] = held[name]
    with pytest.raises(ZooError, match=f"does not fit this network; not in the network: {name}_more$"):
        load_released(small(1001), save(held, tmp_path))


def test_wrong_shapes_are_listed_and_nothing_is_loaded(state: State, tmp_path: Path) -> None:
    state["cell_2.conv_1x1.conv.weight"] = torch.zeros(2, 2, 1, 1)
    network = small(1001)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(
        ZooError, match=r"another shape: cell_2.conv_1x1.conv.weight is \(2, 2, 1, 1\) for \(24, "
    ):
        load_released(network, write_pth(state, tmp_path))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_numbers_of_another_kind_are_refused(state: State, tmp_path: Path) -> None:
    state["cell_2.conv_1x1.bn.weight"] = torch.zeros(24, dtype=torch.int64)
    with pytest.raises(
        ZooError, match=r"other numbers than floats; cell_2\.conv_1x1\.bn\.weight is torch\.int64$"
    ):
        load_released(small(1001), write_pth(state, tmp_path))


def test_half_precision_is_read(state: State, tmp_path: Path) -> None:
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    network = loaded(small(1001), write_safetensors(halves, tmp_path))
    assert torch.equal(network.get_parameter("stem.weight"), state["conv_0.conv.weight"].half().float())


def test_a_compiled_model_is_refused(tmp_path: Path) -> None:
    class Scripted(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Scripted()), tmp_path / "weights.pth")
        with pytest.raises(ZooError, match=r"not a whole PyTorch file|refused"):
            load_released(small(), tmp_path / "weights.pth")


@pytest.mark.parametrize(("held", "wanted"), [(1001, 10), (1000, 1001), (1001, 1002)])
def test_other_numbers_of_classes_are_refused(held: int, wanted: int, tmp_path: Path) -> None:
    reference = ReferencePNASNet(SMALL.repeats, SMALL.filters, 8, classes=held)
    path = write_pth(dict(reference.state_dict()), tmp_path)
    with pytest.raises(ZooError, match=rf"last_linear.bias is \({held},\) for \({wanted},\)"):
        load_released(small(wanted), path)


@pytest.mark.parametrize("write", WRITERS)
def test_weights_of_other_classes_come_without_the_classifier(
    write: Write, state: State, tmp_path: Path
) -> None:
    network = small(20)
    classifier = copy.deepcopy(network.classifier)
    load_released(network, write(state, tmp_path), other_classes=True)
    assert torch.equal(network.classifier.weight, classifier.weight)
    assert torch.equal(network.classifier.bias, classifier.bias)
    whole = loaded(small(1001), write(state, tmp_path)).state_dict()
    assert all(
        torch.equal(tensor, whole[name])
        for name, tensor in network.state_dict().items()
        if not name.startswith("classifier.")
    )


def test_a_classifier_that_fits_is_read_whatever_is_allowed(state: State, tmp_path: Path) -> None:
    path = write_pth(state, tmp_path)
    for classes in (1000, 1001):
        network = small(classes)
        load_released(network, path, other_classes=True)
        assert torch.equal(network.classifier.bias, state["last_linear.bias"][-classes:])


def test_other_widths_are_refused_with_other_classes_too(state: State, tmp_path: Path) -> None:
    state["last_linear.weight"] = state["last_linear.weight"][:, 1:].contiguous()
    with pytest.raises(ZooError, match=r"last_linear.weight is \(1001, "):
        load_released(small(20), write_pth(state, tmp_path), other_classes=True)


def test_our_own_file_of_other_classes_comes_without_both_classifiers(tmp_path: Path) -> None:
    path = write_safetensors(small(5, auxiliary=True).state_dict(), tmp_path)
    network = small(20, auxiliary=True)
    name = "auxiliary.classifier.weight"
    before = network.state_dict()[name].clone()
    load_released(network, path, other_classes=True)
    assert torch.equal(network.state_dict()[name], before)
    assert torch.equal(network.state_dict()["stem.weight"], load_file(path)["stem.weight"])


def test_models_are_made_for_other_classes_from_their_weights(tmp_path: Path) -> None:
    published = create_model("pnasnet5_cifar")
    path = write_safetensors(published.state_dict(), tmp_path)
    network = create_model("pnasnet5_cifar", classes=20, weights=path)
    held, found = published.state_dict(), network.state_dict()
    assert found["classifier.weight"].shape[0] == 20
    assert all(torch.equal(found[name], held[name]) for name in found if not name.startswith("classifier."))
    with pytest.raises(ZooError, match=r"classifier.bias is \(10,\) for \(20,\)"):
        load_released(network, path)


def test_a_long_list_is_cut(state: State, tmp_path: Path) -> None:
    path = write_pth({"conv_0.conv.weight": state["conv_0.conv.weight"]}, tmp_path)
    with pytest.raises(ZooError, match=r"missing: .* and \d+ more$") as caught:
        load_released(small(1001), path)
    assert "\n" not in str(caught.value)


def test_a_network_with_an_auxiliary_classifier_needs_one_in_the_file(state: State, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"missing: auxiliary\.classifier\.bias"):
        load_released(small(1001, auxiliary=True), write_pth(state, tmp_path))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 0.99])
@pytest.mark.parametrize("write", [write_pth, write_old_pth, write_safetensors])
def test_a_file_that_is_cut_off_is_refused(write: Write, share: float, state: State, tmp_path: Path) -> None:
    path = write(state, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ZooError, match=r"not a whole|refused") as caught:
        load_released(small(1001), path)
    assert "\n" not in str(caught.value)


class Malicious:
    """Unpickled by Python, it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.target,)


def malicious_pickle(victim: Path, path: Path) -> None:
    path.write_bytes(pickle.dumps({"conv_0.conv.weight": Malicious(victim)}))


def malicious_archive(victim: Path, path: Path) -> None:
    torch.save({"conv_0.conv.weight": Malicious(victim)}, path)


@pytest.mark.parametrize("write", [malicious_pickle, malicious_archive])
def test_no_pickle_is_executed(write: Callable[[Path, Path], None], tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "weights.pth"
    write(victim, path)
    with pytest.raises(ZooError, match=r"weights\.pth: (refused|not a whole)"):
        load_released(small(), path)
    assert not victim.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(2)], "holds list, allowed is a dictionary"),
        (
            {"state_dict": {"conv_0.conv.weight": torch.zeros(2)}},
            "holds dict, allowed is a dictionary of tensors",
        ),
        ({"features.0.weight": torch.zeros(2)}, r"none of its 1 tensors is called stem\.weight or"),
    ],
)
def test_files_of_something_else_are_refused(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ZooError, match=message):
        load_released(small(), tmp_path / "weights.pth")


@pytest.mark.parametrize(
    "content",
    [b"a,b\n1,2\n", b"", b"\x80", b"(dp0", b"}", b"PK\3\4", b"cos\nsystem\n", bytes(99), b"\x80\2]q\0."],
)
@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "model.ckpt.index", "weights"])
def test_any_bytes_are_refused_in_one_line(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ZooError) as caught:
        load_released(small(), tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("write", [write_old_pth, write_pth, write_safetensors, write_slim])
def test_whatever_is_done_to_a_file_it_is_read_or_refused(write: Write, tmp_path: Path) -> None:
    state = {"conv_0.conv.weight": torch.zeros(2, 3), "conv_0.bn.weight": torch.zeros(2)}
    path = write(state, tmp_path)
    target = path if path.is_file() else path.with_name(path.name + ".index")
    whole, generator = target.read_bytes(), random.Random(write.__name__)
    network = small()
    for _ in range(150):
        changed = bytearray(whole)
        for _ in range(generator.choice((1, 4, 20))):
            changed[generator.randrange(len(changed))] = generator.randrange(256)
        target.write_bytes(changed)
        with pytest.raises(ZooError) as caught:  # at best it holds two tensors
            load_released(network, path)
        assert "\n" not in str(caught.value)


def test_each_file_of_a_checkpoint_names_it(state: State, tmp_path: Path) -> None:
    path = write_slim(state, tmp_path).with_name("model.ckpt.data-00000-of-00001")
    assert torch.equal(loaded(small(1001), path).state_dict()["stem.weight"], state["conv_0.conv.weight"])
    path.with_name("model.ckpt.index").unlink()
    with pytest.raises(ZooError, match=r"-of-00001: no such file, nor model\.ckpt\.index beside it"):
        load_released(small(1001), path)


@pytest.mark.parametrize("name", ["nothing.pth", "nothing.safetensors", "nothing.index"])
def test_a_file_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=f"{name}: no such file"):
        load_released(small(), tmp_path / name)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="no such file"):
        load_released(small(), tmp_path)
