"""Static int8: weights per channel, activations in uint8 by the ranges that calibration images give."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
from onnx import ModelProto
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from pnas_fast.export.model_file import IMAGES

OPERATORS = (
    "Add",
    "AveragePool",
    "Concat",
    "Conv",
    "Gemm",
    "GlobalAveragePool",
    "MaxPool",
    "Relu",
)
"""What runs in int8; a normalisation at the input stays in float32."""

_BATCH = 8


def quantise(model: ModelProto, inputs: npt.NDArray[Any], folder: Path, *, apart: bool = False) -> ModelProto:
    """A float32 model with quantised values: QuantizeLinear and DequantizeLinear around its nodes.

    Weights are int8 with a scale for each output channel, activations uint8 with a scale and a zero point
    from the least and the greatest value that the calibration images give. On x86 CPUs without VNNI, sums of
    such products may saturate, and accuracy may then be lower than measured on one that has it.

    Args:
        model: for any batch; it is not to be used afterwards.
        inputs: calibration images in the model's form.
        folder: for all temporary files.
        apart: whether constants of the float32 model lie in a file of their own, as they must beyond the
            size of one file.
    """
    floats, written = folder / "float32.onnx", folder / "int8.onnx"
    onnx.save(model, floats, save_as_external_data=apart, location="float32.data")
    with _temporary_files_in(folder), _without_warnings():
        quantize_static(
            floats,
            written,
            _Batches(inputs),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            use_external_data_format=apart,
        )
    return onnx.load(written)


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """Feeds calibration images."""

    def __init__(self, inputs: npt.NDArray[Any]) -> None:
        self._batches = iter(
            [{IMAGES: inputs[start : start + _BATCH]} for start in range(0, len(inputs), _BATCH)]
        )

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        return next(self._batches, None)


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Let ONNX Runtime put its own files there, which a later export removes even if this one is killed."""
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Without advice to run ONNX Runtime's own rewriting first: what it would fuse is fused."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
