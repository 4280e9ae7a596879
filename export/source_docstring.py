"""What an exported source file says about itself."""

from __future__ import annotations

from dataclasses import fields

from pnas_fast.export.image_format import ImageFormat
from pnas_fast.export.literals import in_docstring
from pnas_fast.network import CellNetwork, Layout

_TEXT = '''\
"""{title}: a network as plain PyTorch, exported by pnas_fast.

load() gives it with the weights of the safetensors file of the same name.

{cells}
Layout: {count} cells, {layout}
Parameters: {parameters:,}
Classes: {classes}

Input: {takes}
Normalisation: less 255 · MEAN, over 255 · STD, of each channel.
Images are {height}×{width} of {channels} channels: the middle {crop:g} of the largest rectangle of that
shape, resized (bilinear). Output: logits, no softmax.

Batch norms are layers of their own. Dropout, drop-path and an auxiliary classifier belong to
training and are not here.
"""
'''

_RAW = "pixels 0 to 255 as decoded, (batch, H, W, C), which the network normalises itself."
_PREPARED = "images (batch, C, H, W) that normalised() has prepared from pixels 0 to 255."


def docstring_of(network: CellNetwork, images: ImageFormat, *, raw: bool, title: str) -> str:
    """The docstring of a network's source file; arguments as of `write_source`."""
    normal, reduction = str(network.genotype.normal), str(network.genotype.reduction)
    cells = [f"Cell: {normal}", *([f"Reduction cell: {reduction}"] if reduction != normal else [])]
    return _TEXT.format(
        title=in_docstring(title),
        cells="\n".join(cells),
        count=len(network.cells),
        layout=_layout(network.layout),
        parameters=network.parameters_count,
        classes=network.classifier.out_features,
        takes=_RAW if raw else _PREPARED,
        height=images.height,
        width=images.width,
        channels=images.channels,
        crop=images.crop,
    )


def _layout(layout: Layout) -> str:
    """What is not as in every network."""
    named = {field.name: (field.default, getattr(layout, field.name)) for field in fields(layout)}
    return ", ".join(f"{name} {value}" for name, (usual, value) in named.items() if value != usual)
