"""Weights in the layouts of released files (docs/method.md, 5.2, 5.3), made from timm's layout."""

import numpy as np
import numpy.typing as npt
from torch import Tensor

KERNELS = {"0_left": 5, "1_left": 7, "2_left": 5, "2_right": 3, "3_left": 3, "4_left": 3}
"""Of the separable convolutions."""

NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def of_author(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The layout of PNASNet-5_Large.pth."""
    return {_author(name): tensor for name, tensor in state.items()}


def of_slim(state: dict[str, Tensor]) -> dict[str, npt.NDArray[np.float32]]:
    """The layout of the TensorFlow checkpoints, with what training leaves in them."""
    arrays = {}
    for name, tensor in state.items():
        if not name.endswith("num_batches_tracked"):
            array = tensor.numpy()
            if array.ndim == 4:
                depthwise = "depthwise" in name
                array = np.transpose(array, (2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
            arrays[_slim(name)] = array.T if array.ndim == 2 else array
    return arrays


def _author(name: str) -> str:
    place, _, rest = name.partition(".")
    match place.split("_"):
        case ["conv", "0"]:
            return rest.replace("conv.", "conv0.").replace("bn.", "conv0_bn.")
        case ["last", "linear"]:
            return f"classifier.{rest}"
        case ["cell", "stem", index]:
            return f"stem{int(index) + 1}.{_author_part(rest)}"
        case ["cell", index]:
            return f"cells.{index}.{_author_part(rest)}"
    raise AssertionError(name)


def _author_part(name: str) -> str:
    part, _, rest = name.partition(".")
    projection = rest.replace("conv.", "op.1.").replace("bn.", "op.2.")
    if part == "conv_1x1":
        return f"preprocess1.{projection}"
    if part == "conv_prev_1x1":
        halves = {"path_1.conv.weight": "conv_1.weight", "path_2.conv.weight": "conv_2.weight"}
        if "path" in rest:
            return f"preprocess0.{halves.get(rest, rest.replace('final_path_bn.', 'bn.'))}"
        return f"preprocess0.{projection}"
    _, _, block, side = part.split("_")
    operation = f"_ops.{2 * int(block) + ['left', 'right'].index(side)}"
    if f"{block}_{side}" in KERNELS:
        places = [
            ("separable_1.depthwise_conv2d", "1"),
            ("separable_1.pointwise_conv2d", "2"),
            ("bn_sep_1", "3"),
            ("separable_2.depthwise_conv2d", "5"),
            ("separable_2.pointwise_conv2d", "6"),
            ("bn_sep_2", "7"),
        ]
        layer, place = next((layer, place) for layer, place in places if rest.startswith(layer))
        return f"{operation}.op.{place}{rest.removeprefix(layer)}"
    if (block, side) == ("0", "right"):  # a pool, then 1×1
        return f"{operation}.{rest.replace('conv.', '1.').replace('bn.', '2.')}"
    return f"{operation}.{projection}"


def _slim(name: str) -> str:
    place, _, rest = name.partition(".")
    layer, _, leaf = rest.rpartition(".")
    if place == "last_linear":
        return f"final_layer/FC/{'weights' if leaf == 'weight' else 'biases'}"
    if place == "conv_0":
        return "conv0/weights" if layer == "conv" else f"conv0_bn/{NORM[leaf]}"
    part, _, layer = layer.partition(".")
    if part == "conv_1x1":
        return f"{place}/1x1/weights" if layer == "conv" else f"{place}/beginning_bn/{NORM[leaf]}"
    if part == "conv_prev_1x1":
        weights = {"conv": "prev_1x1", "path_1.conv": "path1_conv", "path_2.conv": "path2_conv"}
        if layer in weights:
            return f"{place}/{weights[layer]}/weights"
        return f"{place}/{'prev_bn' if layer == 'bn' else 'final_path_bn'}/{NORM[leaf]}"
    _, _, block, side = part.split("_")
    folder = f"{place}/comb_iter_{block}/{side}"
    if f"{block}_{side}" not in KERNELS:
        return f"{folder}/1x1/weights" if layer == "conv" else f"{folder}/bn_1/{NORM[leaf]}"
    half = layer.split(".")[0][-1]
    kernel = f"{KERNELS[f'{block}_{side}']}x{KERNELS[f'{block}_{side}']}_{half}"
    if layer.startswith("bn"):
        return f"{folder}/bn_sep_{kernel}/{NORM[leaf]}"
    kind = "depthwise" if "depthwise" in layer else "pointwise"
    return f"{folder}/separable_{kernel}/{kind}_weights"
