"""What every backend refuses, in the same words: one table for all of them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from oracle import activation
from pnas_fast.kernels import Backend, BackendError, CellOutput, Side, get_backend
from pnas_fast.kernels.augment import augment, augment_eager
from pnas_fast.kernels.recording import Recording

C, F = 8, 6
TRITON = pytest.param("triton", marks=pytest.mark.interpreter)
"""A card's kernels would refuse these arguments, which are on the CPU, for that alone."""

COMPILED = ("cpu", TRITON)
EVERY = ("eager", *COMPILED)
ANY: Any = None
ANY_POOL: Any = "sum"


def norm(features: int = F, **settings: Any) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(features, **settings)


def changed(own: nn.BatchNorm2d, **tensors: Tensor | None) -> nn.BatchNorm2d:
    """A norm with other tensors in it than it was made with."""
    for name, tensor in tensors.items():
        parameter = tensor is not None and name in ("weight", "bias")
        setattr(own, name, nn.Parameter(tensor) if parameter else tensor)  # type: ignore[arg-type]
    return own


def x(*shape: int) -> Tensor:
    return activation(*(shape or (2, C, 5, 5)))


def weight(*shape: int) -> Tensor:
    return torch.randn(*(shape or (F, C, 1, 1)))


@dataclass
class Call:
    """An operation that every backend serves, until something of it is replaced."""

    operation: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def on(self, backend: Backend[Any]) -> Any:
        return getattr(backend, self.operation)(**self.arguments)

    def but(self, **others: Any) -> "Call":
        return replace(self, arguments=self.arguments | others)


def dense() -> Call:
    return Call("convolution", {"x": x(), "weight": weight(), "norm": norm()})


def separable() -> Call:
    given = {"x": x(), "depthwise": weight(C, 1, 3, 3), "pointwise": weight(), "norm": norm()}
    return Call("separable", given)


def factorized() -> Call:
    halves = {"even": weight(F // 2, C, 1, 1), "odd": weight(F // 2, C, 1, 1)}
    return Call("factorized_reduction", {"x": x(), **halves, "norm": norm()})


def pool() -> Call:
    return Call("pool", {"x": x(), "kind": "avg", "stride": 1})


def add() -> Call:
    return Call("add", {"left": Side(x()), "right": Side(x()), "output": CellOutput(2), "block": 0})


def kept(keep: Any) -> Call:
    return add().but(left=Side(x(), keep=keep))


BAD_STATES = {
    "no tensor": ([[1.0]], "the activation is a list"),
    "three dimensions": (torch.zeros(C, 5, 5), "the activation's shape is (8, 5, 5)"),
    "no images": (torch.zeros(0, C, 5, 5), "the activation's shape is (0, 8, 5, 5)"),
    "no channels": (torch.zeros(2, 0, 5, 5), "the activation's shape is (2, 0, 5, 5)"),
    "no pixels": (torch.zeros(2, C, 5, 0), "the activation's shape is (2, 8, 5, 0)"),
    "integers": (x().int(), "the activation's type is torch.int32"),
    "complex": (x().to(torch.complex64), "the activation's type is torch.complex64"),
    "sparse": (x().to_sparse(), "the activation: its memory is torch.sparse_coo"),
    "negated": (torch.complex(x(), x()).conj().imag, "the activation: its memory is negated"),
}
UNREADABLE = {
    "NCHW": (torch.zeros(2, C, 5, 5), "with strides (200, 25, 5, 1), allowed is NHWC memory"),
    "expanded": (torch.zeros(1, C, 1, 1).expand(2, C, 5, 5), "allowed is NHWC memory"),
    "rows apart": (x(2, C, 10, 5)[:, :, ::2], "allowed is NHWC memory"),
    "doubles": (x().double(), "the activation's type is torch.float64"),
    "elsewhere": (torch.empty(2, C, 5, 5, device="meta"), "the activation's device is meta"),
}
READERS: dict[str, Callable[[Any], Call]] = {
    "convolution": lambda state: dense().but(x=state),
    "separable": lambda state: separable().but(x=state),
    "factorized_reduction": lambda state: factorized().but(x=state),
    "pool": lambda state: pool().but(x=state),
    "add": lambda state: add().but(left=Side(state)),
    "add, right": lambda state: add().but(right=Side(state)),
    "global_average": lambda state: Call("global_average", {"x": state}),
    "materialise": lambda state: Call("materialise", {"x": state}),
}

REFUSED: dict[str, tuple[Call, str]] = {
    "a weight of fewer channels": (dense().but(weight=weight(F, 4, 1, 1)), "weight's shape is (6, 4, 1, 1)"),
    "a weight of more channels": (dense().but(weight=weight(F, 800, 1, 1)), "allowed is (F, 8, kh, kw)"),
    "no filters": (dense().but(weight=weight(0, C, 1, 1)), "weight's shape is (0, 8, 1, 1)"),
    "no taps": (dense().but(weight=weight(F, C, 0, 1)), "weight's shape is (6, 8, 0, 1)"),
    "a weight of two dimensions": (dense().but(weight=weight(F, C)), "the weight's shape is (6, 8)"),
    "a weight of integers": (dense().but(weight=weight().int()), "the weight: its type is torch.int32"),
    "a weight elsewhere": (dense().but(weight=weight().to("meta")), "the weight: its device is meta"),
    "a sparse weight": (dense().but(weight=weight().to_sparse()), "the weight: its memory is torch.sparse"),
    "no weight": (dense().but(weight=None), "the weight is a NoneType, allowed is a tensor"),
    "stride 0": (dense().but(stride=(0, 1)), "the stride is (0, 1), allowed is 1 or 2 along each axis"),
    "a negative stride": (dense().but(stride=(1, -1)), "the stride is (1, -1)"),
    "stride 3": (dense().but(stride=(3, 3)), "the stride is (3, 3)"),
    "half a stride": (dense().but(stride=(1.5, 1)), "the stride is (1.5, 1)"),
    "one stride": (dense().but(stride=1), "the stride is 1, allowed"),
    "a norm of 1": (dense().but(norm=norm(1)), "batch norm's weight's shape is (1,), allowed is (6,)"),
    "a norm of 4,096": (dense().but(norm=norm(4096)), "shape is (4096,), allowed is (6,)"),
    "a norm without affine": (dense().but(norm=norm(affine=False)), "one without affine or running stat"),
    "a norm without statistics": (
        dense().but(norm=norm(track_running_stats=False)),
        "one without affine or running statistics, allowed is one with both",
    ),
    "a norm without shift": (dense().but(norm=changed(norm(), bias=None)), "one without affine"),
    "a norm of short statistics": (
        dense().but(norm=changed(norm(), running_var=torch.ones(2))),
        "the batch norm's running variance's shape is (2,)",
    ),
    "a norm of a strided scale": (
        dense().but(norm=changed(norm(), weight=torch.ones(2 * F)[::2])),
        "the batch norm's weight's memory is shape (6,) with strides (2,)",
    ),
    "a norm of doubles": (dense().but(norm=norm().double()), "weight: its type is torch.float64"),
    "a norm elsewhere": (dense().but(norm=norm().to("meta")), "weight: its device is meta"),
    "a norm that counts in floats": (
        dense().but(norm=changed(norm(), num_batches_tracked=torch.zeros(()))),
        "count of batches: its type is torch.float32",
    ),
    "another module": (dense().but(norm=nn.Identity()), "a Identity, allowed is torch.nn.BatchNorm2d"),
    "one value a channel": (
        dense().but(x=x(1, C, 1, 1)),
        "trained on 1 value per channel, allowed is 2 or more",
    ),
    "one value a channel of all": (
        separable().but(x=x(1, C, 2, 2), stride=2),
        "trained on 1 value per channel",
    ),
    "a depthwise weight of fewer channels": (
        separable().but(depthwise=weight(4, 1, 3, 3)),
        "the depthwise weight's shape is (4, 1, 3, 3), allowed is (8, 1, k, k)",
    ),
    "a dense depthwise weight": (separable().but(depthwise=weight(C, C, 3, 3)), "is (8, 8, 3, 3), allowed"),
    "an oblong depthwise weight": (separable().but(depthwise=weight(C, 1, 3, 5)), "is (8, 1, 3, 5)"),
    "a pointwise weight of taps": (separable().but(pointwise=weight(F, C, 3, 3)), "is (6, 8, 3, 3)"),
    "a pointwise weight of more channels": (separable().but(pointwise=weight(F, 800, 1, 1)), "(F, 8, 1, 1)"),
    "a pointwise weight of no filters": (separable().but(pointwise=weight(0, C, 1, 1)), "is (0, 8, 1, 1)"),
    "separable stride 0": (separable().but(stride=0), "the stride is (0, 0)"),
    "separable stride 3": (separable().but(stride=3), "the stride is (3, 3)"),
    "no dilation": (separable().but(dilation=0), "the dilation is 0, allowed is 1 or more"),
    "separable without a norm": (separable().but(norm=None), "the batch norm is a NoneType"),
    "factorized without a norm": (factorized().but(norm=None), "the batch norm is a NoneType"),
    "unequal halves": (factorized().but(even=weight(5, C, 1, 1)), "is 5 even and 3 odd ones"),
    "halves of no filters": (
        factorized().but(even=weight(0, C, 1, 1), odd=weight(0, C, 1, 1)),
        "is 0 even and 0 odd ones",
    ),
    "an odd weight of fewer channels": (
        factorized().but(odd=weight(3, 4, 1, 1)),
        "the odd weight's shape is (3, 4, 1, 1), allowed is (F, 8, 1, 1)",
    ),
    "another pool": (pool().but(kind="min"), "the pool is 'min', allowed is avg max"),
    "a pool's stride": (pool().but(stride=3), "the stride is 3, allowed is 1 or 2"),
    "a side's pool": (add().but(left=Side(x(), ANY_POOL)), "the left side's pool is 'sum'"),
    "a side's stride": (add().but(left=Side(x(), "max", 0)), "the left side's stride is 0"),
    "a stride without a pool": (
        add().but(right=Side(x(), None, 2)),
        "the right side's stride is 2, allowed is 1 where there is no pool",
    ),
    "sides of other heights": (
        add().but(right=Side(x(2, C, 6, 5))),
        "right side's result is (2, 8, 6, 5) torch.float32 on cpu, allowed is as the left's, (2, 8, 5, 5)",
    ),
    "sides of other channels": (add().but(right=Side(x(2, 4, 5, 5))), "result is (2, 4, 5, 5)"),
    "sides of other images": (add().but(right=Side(x(3, C, 5, 5))), "result is (3, 8, 5, 5)"),
    "a pooled side of another size": (add().but(right=Side(x(), "avg", 2)), "result is (2, 8, 3, 3)"),
    "a block past the end": (add().but(block=2), "the block's place is 2, allowed is a free one, of [0, 1]"),
    "a block before the first": (add().but(block=-1), "the block's place is -1"),
    "an output of no blocks": (add().but(output=CellOutput(0)), "the number of blocks is 0"),
    "keep expanded": (kept(torch.ones(1, 1, 1, 1).expand(2, 1, 1, 1)), "keep's memory is shape (2, 1, 1, 1)"),
    "keep of integers": (kept(torch.ones(2, 1, 1, 1).int()), "keep: its type is torch.int32"),
    "keep of doubles": (kept(torch.ones(2, 1, 1, 1).double()), "keep: its type is torch.float64"),
    "keep of other images": (kept(torch.ones(3, 1, 1, 1)), "keep's shape is (3, 1, 1, 1), allowed is (2,"),
    "keep of one dimension": (kept(torch.ones(2)), "keep's shape is (2,)"),
    "keep of pixels": (kept(torch.ones(2, 1, 5, 5)), "keep's shape is (2, 1, 5, 5)"),
    "keep elsewhere": (kept(torch.ones(2, 1, 1, 1, device="meta")), "keep: its device is meta"),
    "keep to be learned": (kept(torch.ones(2, 1, 1, 1, requires_grad=True)), "requires a gradient"),
    "a number as keep": (kept(1.0), "keep is a float, allowed is a tensor"),
}

UNREADABLE_CALLS: dict[str, tuple[Call, str]] = {
    "a weight of doubles": (dense().but(weight=weight().double()), "the weight: its type is torch.float64"),
    "a weight with gaps": (
        dense().but(weight=weight(2 * F, C, 1, 1)[::2]),
        "allowed is contiguous or channels_last memory",
    ),
    "a weight of transposed taps": (
        dense().but(weight=weight(F, C, 3, 5).transpose(2, 3)),
        "allowed is contiguous or channels_last memory",
    ),
    "an expanded weight": (dense().but(weight=weight(1, C, 1, 1).expand(F, C, 1, 1)), "with strides (0,"),
    "too many taps": (dense().but(weight=weight(F, C, 8, 8)), "a kernel of up to 49 taps"),
    "another depthwise kernel": (
        separable().but(depthwise=weight(C, 1, 4, 4)),
        "depthwise kernel is 4×4 with dilation 1, allowed is 3×3 with dilation 1, 3×3 with dilation 2, 5×5",
    ),
    "another dilation": (separable().but(depthwise=weight(C, 1, 5, 5), dilation=2), "5×5 with dilation 2"),
}


def assert_refused(backend: str, call: Call, words: str) -> None:
    with pytest.raises(BackendError) as refusal:
        call.on(get_backend(backend))
    message = str(refusal.value)
    assert message.startswith(f"backend {backend}: ")
    assert words in message
    assert ", allowed is " in message
    assert "\n" not in message


@pytest.mark.parametrize("backend", EVERY)
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("state", BAD_STATES)
def test_what_is_no_activation_is_refused(state: str, reader: str, backend: str) -> None:
    value, words = BAD_STATES[state]
    assert_refused(backend, READERS[reader](value), words)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("state", UNREADABLE)
def test_what_compiled_kernels_cannot_read_is_refused(state: str, reader: str, backend: str) -> None:
    value, words = UNREADABLE[state]
    assert_refused(backend, READERS[reader](value), words)


@pytest.mark.parametrize("backend", EVERY)
@pytest.mark.parametrize("name", REFUSED)
def test_every_backend_refuses_alike(name: str, backend: str) -> None:
    call, words = REFUSED[name]
    assert_refused(backend, call, words)


@pytest.mark.parametrize("backend", COMPILED)
@pytest.mark.parametrize("name", UNREADABLE_CALLS)
def test_compiled_kernels_refuse_alike(name: str, backend: str) -> None:
    call, words = UNREADABLE_CALLS[name]
    assert_refused(backend, call, words)


@pytest.mark.parametrize(
    ("made", "read"),
    [
        ("cpu", "eager"),
        pytest.param("triton", "eager", marks=pytest.mark.interpreter),
        pytest.param("triton", "cpu", marks=pytest.mark.interpreter),
    ],
)
@pytest.mark.parametrize("reader", READERS)
def test_what_another_backend_left_pending_is_refused(reader: str, made: str, read: str) -> None:
    state = dense().on(get_backend(made))
    assert_refused(read, READERS[reader](state), f"the activation is a {type(state).__name__}")


@pytest.mark.parametrize("backend", EVERY)
def test_a_second_block_fits_the_first(backend: str) -> None:
    output = CellOutput(3)
    first = add().but(output=output).on(get_backend(backend))
    other = add().but(left=Side(x(2, 4, 5, 5)), right=None, output=output, block=1)
    assert_refused(
        backend, other, "the block's result is (2, 4, 5, 5) torch.float32 on cpu, allowed is as an"
    )
    assert_refused(
        backend, add().but(output=output), "the block's place is 0, allowed is a free one, of [1, 2]"
    )
    second = add().but(output=output, block=1).on(get_backend(backend))
    for states in ([first, second], [second, first], [first, second, x()], []):
        call = Call("concatenate", {"states": states, "output": output})
        assert_refused(backend, call, "allowed is that of places 0 to 2")


@pytest.mark.parametrize("backend", EVERY)
def test_what_was_refused_left_nothing_behind(backend: str) -> None:
    """The cell's other blocks and the norm's statistics are as they would have been."""
    output, own = CellOutput(2), norm()
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    for call, words in ((add().but(block=5, output=output), "place"), (dense().but(norm=own, stride=0), "")):
        assert_refused(backend, call, words)
    assert not output.written
    assert output.memory is None
    torch.testing.assert_close(own.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("backend", EVERY)
@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(0, 3)] * 4),
    own=st.tuples(*[st.integers(0, 3)] * 4),
    features=st.integers(1, 4),
    stride=st.tuples(st.integers(-1, 3), st.integers(-1, 3)),
)
def test_a_convolution_is_done_right_or_refused(
    backend: str, shape: tuple[int, ...], own: tuple[int, ...], features: int, stride: tuple[int, int]
) -> None:
    """Whatever the shapes: what is not refused has the oracle's values. (Triton only refuses.)"""
    state, given = activation(*shape), weight(*own)
    fits = 0 not in (*shape, *own) and own[1] == shape[1] and features == own[0] and {*stride} <= {1, 2}
    values = shape[0] * -(-shape[2] // (stride[0] or 1)) * -(-shape[3] // (stride[1] or 1))
    call = Call("convolution", {"x": state, "weight": given, "norm": norm(features), "stride": stride})
    if not fits or values == 1:
        assert_refused(backend, call, "")
    elif backend != "triton":
        exact = call.but(x=state.double(), weight=given.double(), norm=norm(features).double())
        expected = exact.on(get_backend("eager"))
        got = get_backend(backend).materialise(call.on(get_backend(backend)))
        torch.testing.assert_close(got.double(), expected, rtol=1e-3, atol=1e-3)


def rows(*changes: tuple[int, int]) -> Tensor:
    """Two rows of numbers that are right, but for some places."""
    found = torch.zeros(2, 6, dtype=torch.int32)
    for place, value in changes:
        found[1, place] = value
    return found


IMAGES = torch.zeros(10, 3, 4, 4, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
BATCH: dict[str, Any] = {
    "images": IMAGES, "rows": rows(), "table": torch.zeros(3, 256), "padding": 1, "cutout": 0,
}  # fmt: skip
BAD_BATCHES: dict[str, tuple[dict[str, Any], str]] = {
    "an image that there is not": ({"rows": rows((0, 10))}, "row 1 (image, top, left) is (10, 0, 0)"),
    "an image before the first": ({"rows": rows((0, -1))}, "is (-1, 0, 0), allowed is up to (9, 2, 2)"),
    "a far image": ({"rows": rows((0, 2**31 - 1))}, "is (2147483647, 0, 0)"),
    "a crop below": ({"rows": rows((1, 3))}, "is (0, 3, 0), allowed is up to (9, 2, 2)"),
    "a crop far off": ({"rows": rows((2, -(2**31)))}, "is (0, 0, -2147483648)"),
    "a table of 10 levels": (
        {"table": torch.zeros(3, 10)},
        "the table's shape is (3, 10), allowed is (3, 256)",
    ),
    "a table of other channels": ({"table": torch.zeros(1, 256)}, "the table's shape is (1, 256)"),
    "a table of bytes": (
        {"table": torch.zeros(3, 256, dtype=torch.int8)},
        "the table: its type is torch.int8",
    ),
    "a table of integers": ({"table": torch.zeros(3, 256).int()}, "the table: its type is torch.int32"),
    "a transposed table": ({"table": torch.zeros(256, 3).T}, "the table's memory is shape (3, 256)"),
    "an expanded table": ({"table": torch.zeros(1, 256).expand(3, 256)}, "the table's memory"),
    "a table elsewhere": ({"table": torch.zeros(3, 256, device="meta")}, "the table: its device is meta"),
    "rows of long numbers": ({"rows": rows().long()}, "rows: its type is torch.int64"),
    "rows of five": ({"rows": rows()[:, :5].contiguous()}, "rows' shape is (2, 5)"),
    "no rows": ({"rows": rows()[:0]}, "rows' shape is (0, 6)"),
    "one row": ({"rows": rows()[0]}, "rows' shape is (6,)"),
    "rows of a wider table": ({"rows": torch.zeros(2, 8).int()[:, :6]}, "rows' memory is shape (2, 6)"),
    "rows of a list": ({"rows": [[0] * 6]}, "rows is a list, allowed is a tensor"),
    "images of floats": ({"images": IMAGES.float()}, "images: its type is torch.float32"),
    "no images": ({"images": IMAGES[:0]}, "images' shape is (0, 3, 4, 4)"),
    "one image": ({"images": IMAGES[0]}, "images' shape is (3, 4, 4)"),
    "images in NCHW": ({"images": IMAGES.contiguous()}, "images' memory is shape (10, 3, 4, 4)"),
    "every other image": ({"images": IMAGES[::2]}, "images' memory is shape (5, 3, 4, 4)"),
    "a negative padding": ({"padding": -1}, "padding is -1, allowed is 0 to 1,048,576"),
    "half a pixel": ({"padding": 0.5}, "padding is 0.5"),
    "a huge cutout": ({"cutout": 2**40}, "cutout is 1099511627776"),
    "a negative cutout": ({"cutout": -2}, "cutout is -2"),
}


@pytest.mark.parametrize("function", [augment, augment_eager])
@pytest.mark.parametrize("name", BAD_BATCHES)
def test_batches_that_cannot_be_made_are_refused(name: str, function: Callable[..., Tensor]) -> None:
    changes, words = BAD_BATCHES[name]
    with pytest.raises(BackendError) as refusal:
        function(**BATCH | changes)
    assert words in str(refusal.value)
    assert str(refusal.value).startswith("augment: ")


def test_a_replay_looks_at_its_rows_too() -> None:
    """They are values, which are others in every step."""
    given, out = rows(), torch.zeros(2, 3, 4, 4)

    def step() -> None:
        out.copy_(augment(**BATCH | {"rows": given}))

    recording = Recording()
    recording.record(step)
    assert recording.refusal is None
    recording.replay()
    given[1, 0] = 10
    with pytest.raises(ValueError, match=r"row 1 \(image, top, left\) is \(10, 0, 0\)"):
        recording.replay()
