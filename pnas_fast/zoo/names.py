"""What released files of PNASNet-5 call a network's tensors: rules for each layout (docs/method.md, 5).

The rules of a layout turn every *role* into one name, so reading a file is a comparison of two sets of names
and nothing is missed in either direction. A role is our own name of a parameter or buffer with what rules
need to know written out: ``cells.3.blocks.0.left.sep5_2.norm.bias`` is in the second half of a separable 5×5,
``align_before.factorized.even`` in a factorized reduction, ``pooled.weight`` in the 1×1 after a pool.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pnas_fast.network import CellNetwork
from pnas_fast.network.layers import FactorizedReduction, SeparableHalf
from pnas_fast.network.operations import Pool

STEM_CELLS = 2

Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""A regular expression, and what replaces it."""

Axes = tuple[int, ...]

NEVER = r"(?!)"


@dataclass(frozen=True)
class NameMap:
    """A layout of files.

    Attributes:
        title: its name, for people.
        marker: a tensor that every such file has, and files of other layouts have not.
        rules: all are applied to a role, one after the other.
        ignored: a regular expression over tensors of a file that a network need not have.
        axes: regular expressions over roles, and the file's axes in the order of ours where they differ.
    """

    title: str
    marker: str
    rules: tuple[Rule, ...]
    ignored: str = NEVER
    axes: tuple[tuple[str, Axes], ...] = ()

    def name(self, role: str) -> str:
        """The file's name of a role's tensor."""
        for pattern, replacement in self.rules:
            role = re.sub(pattern, replacement, role)
        return role

    def order(self, role: str) -> Axes | None:
        """The file's axes of a role's tensor in the order of ours; None where they are the same."""
        return next((axes for pattern, axes in self.axes if re.search(pattern, role)), None)


def roles(network: CellNetwork) -> dict[str, str]:
    """Each of a network's own names of parameters and buffers, and its role."""
    written_out = {}
    for path, module in network.named_modules():
        if isinstance(module, FactorizedReduction):
            written_out[f"{path}."] = f"{path}.factorized."
        elif isinstance(module, SeparableHalf):
            operation, _, half = path.rpartition(".layers.")
            written_out[f"{path}."] = f"{operation}.sep{module.depthwise.shape[2]}_{int(half) + 1}."
        elif isinstance(module, Pool):
            written_out[f"{path}.project."] = f"{path}.pooled."
    found = {}
    for name in network.state_dict():
        prefix = next((prefix for prefix in written_out if name.startswith(prefix)), "")
        found[name] = written_out.get(prefix, "") + name[len(prefix) :]
    return found


def _body(text: str) -> Rule:
    """Cells after the stem's, counted from 0."""
    return r"^cells\.(\d+)\.", lambda found: text.format(int(found[1]) - STEM_CELLS)


OWN = NameMap(title="this project's", marker="stem.weight", ignored=r"^auxiliary\.", rules=(
    (r"\.factorized\.", "."),
    (r"\.sep\d_(\d)\.", lambda found: f".layers.{int(found[1]) - 1}."),
    (r"\.pooled\.", ".project."),
))  # fmt: skip
"""Ours."""

CADENE = NameMap(title="Cadene's or timm's", marker="conv_0.conv.weight", rules=(
    (r"^stem\.weight", "conv_0.conv.weight"),
    (r"^stem\.norm", "conv_0.bn"),
    (r"^classifier", "last_linear"),
    (r"^cells\.([01])\.", r"cell_stem_\1."),
    _body("cell_{}."),
    (r"align_previous\.weight", "conv_1x1.conv.weight"),
    (r"align_previous\.norm", "conv_1x1.bn"),
    (r"align_before\.weight", "conv_prev_1x1.conv.weight"),
    (r"align_before\.norm", "conv_prev_1x1.bn"),
    (r"align_before\.factorized\.even", "conv_prev_1x1.path_1.conv.weight"),
    (r"align_before\.factorized\.odd", "conv_prev_1x1.path_2.conv.weight"),
    (r"align_before\.factorized\.norm", "conv_prev_1x1.final_path_bn"),
    (r"blocks\.(\d)\.(left|right)", r"comb_iter_\1_\2"),
    (r"sep\d_(\d)\.depthwise", r"separable_\1.depthwise_conv2d.weight"),
    (r"sep\d_(\d)\.pointwise", r"separable_\1.pointwise_conv2d.weight"),
    (r"sep\d_(\d)\.norm", r"bn_sep_\1"),
    (r"(pooled|project)\.weight", "conv.weight"),
    (r"(pooled|project)\.norm", "bn"),
))  # fmt: skip
"""docs/method.md, 5.1: ``pnasnet5large-bf079911.pth`` and timm's ``pnasnet5large.tf_in1k``."""

AUTHOR = NameMap(title="the author's", marker="conv0.weight", rules=(
    (r"^stem\.weight", "conv0.weight"),
    (r"^stem\.norm", "conv0_bn"),
    (r"^cells\.0\.", "stem1."),
    (r"^cells\.1\.", "stem2."),
    _body("cells.{}."),
    (r"align_previous\.weight", "preprocess1.op.1.weight"),
    (r"align_previous\.norm", "preprocess1.op.2"),
    (r"align_before\.weight", "preprocess0.op.1.weight"),
    (r"align_before\.norm", "preprocess0.op.2"),
    (r"align_before\.factorized\.even", "preprocess0.conv_1.weight"),
    (r"align_before\.factorized\.odd", "preprocess0.conv_2.weight"),
    (r"align_before\.factorized\.norm", "preprocess0.bn"),
    (r"blocks\.(\d)\.(left|right)", lambda found: f"_ops.{2 * int(found[1]) + (found[2] == 'right')}"),
    (r"sep\d_1\.depthwise", "op.1.weight"),
    (r"sep\d_1\.pointwise", "op.2.weight"),
    (r"sep\d_1\.norm", "op.3"),
    (r"sep\d_2\.depthwise", "op.5.weight"),
    (r"sep\d_2\.pointwise", "op.6.weight"),
    (r"sep\d_2\.norm", "op.7"),
    (r"pooled\.weight", "1.weight"),
    (r"pooled\.norm", "2"),
    (r"project\.weight", "op.1.weight"),
    (r"project\.norm", "op.2"),
))  # fmt: skip
"""docs/method.md, 5.2: ``PNASNet-5_Large.pth``."""

SLIM = NameMap(
    title="TensorFlow-slim's",
    marker="conv0/weights",
    rules=(
        (r"^stem\.weight", "conv0/weights"),
        (r"^stem\.norm", "conv0_bn"),
        (r"^classifier\.weight", "final_layer/FC/weights"),
        (r"^classifier\.bias", "final_layer/FC/biases"),
        (r"^cells\.([01])\.", r"cell_stem_\1/"),
        _body("cell_{}/"),
        (r"align_previous\.weight", "1x1/weights"),
        (r"align_previous\.norm", "beginning_bn"),
        (r"align_before\.weight", "prev_1x1/weights"),
        (r"align_before\.norm", "prev_bn"),
        (r"align_before\.factorized\.even", "path1_conv/weights"),
        (r"align_before\.factorized\.odd", "path2_conv/weights"),
        (r"align_before\.factorized\.norm", "final_path_bn"),
        (r"blocks\.(\d)\.(left|right)\.", r"comb_iter_\1/\2/"),
        (r"sep(\d)_(\d)\.(depth|point)wise", r"separable_\1x\1_\2/\3wise_weights"),
        (r"sep(\d)_(\d)\.norm", r"bn_sep_\1x\1_\2"),
        (r"(pooled|project)\.weight", "1x1/weights"),
        (r"(pooled|project)\.norm", "bn_1"),
        (r"\.weight$", "/gamma"),
        (r"\.bias$", "/beta"),
        (r"\.running_mean$", "/moving_mean"),
        (r"\.running_var$", "/moving_variance"),
    ),
    # What training leaves behind: steps, averages, an optimiser's state, the auxiliary classifier.
    ignored=r"(^|/)global_step$|/(ExponentialMovingAverage|RMSProp(_\d)?|Momentum)$|^aux_\d+/",
    axes=(
        (r"\.depthwise$", (2, 3, 0, 1)),
        (r"^classifier\.weight$", (1, 0)),
        (r"(^stem|align_\w+|pooled|project)\.weight$|\.(pointwise|even|odd)$", (3, 2, 0, 1)),
    ),
)
"""docs/method.md, 5.3."""

LAYOUTS = (OWN, CADENE, AUTHOR, SLIM)
