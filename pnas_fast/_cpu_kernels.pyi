"""Types of the compiled module, whose source is csrc/cpu_kernels.pyx. Tensors are addresses, 0 for none."""

WeightView = tuple[int, int, int, int]
"""Address, and the strides of filters, channels and taps."""

Shape = tuple[int, ...]
"""(N, C, H, W)."""

def share_threads(entry: int) -> None:
    """Use the OpenMP runtime whose GOMP_parallel is at this address."""

def asked_instruction_set() -> str:
    """What the environment variable PNAS_FAST_CPU asks for, empty where it does not."""

def instruction_set() -> str:
    """The name of the instruction set in use."""

class Convolution:
    """One convolution of tensors of known shapes."""

    def __init__(
        self,
        kind: int,
        *,
        images: int,
        height: int,
        width: int,
        channels: int,
        out_height: int,
        out_width: int,
        filters: int,
        kernel_height: int,
        kernel_width: int,
        stride_height: int,
        stride_width: int,
        dilation: int,
        top: int,
        left: int,
        rectify: bool,
    ) -> None: ...
    def forward(
        self, z: int, pixel: int, affine: int, weights: tuple[WeightView, ...], out: int, threads: int
    ) -> None:
        """Write the output; no norm follows."""

    def forward_normalised(
        self,
        z: int,
        pixel: int,
        affine: int,
        weights: tuple[WeightView, ...],
        out: int,
        gamma: int,
        beta: int,
        running_mean: int,
        running_variance: int,
        batches: int,
        momentum: float,
        epsilon: float,
        training: bool,
        out_affine: int,
        out_statistics: int,
        threads: int,
    ) -> None:
        """Write the output, its norm's affine and statistics."""

    def backward(
        self,
        z: int,
        pixel: int,
        affine: int,
        weights: tuple[WeightView, ...],
        out: int,
        g: int,
        g_pixel: int,
        gamma: int,
        statistics: int,
        d_out_affine: int,
        training: bool,
        pending: bool,
        d_gamma: int,
        d_beta: int,
        dz: int,
        dz_pixel: int,
        d_affine: int,
        accumulate: bool,
        d_weights: tuple[WeightView, ...],
        threads: int,
    ) -> None:
        """Gradients of source, weights and norm."""

class Side:
    """One side of an addition."""

    def __init__(
        self,
        z: int,
        pixel: int,
        affine: int,
        channels: int,
        height: int,
        width: int,
        pool: int,
        stride: int,
        keep: int,
    ) -> None: ...

def add_forward(shape: Shape, left: Side, right: Side | None, out: int, out_pixel: int, threads: int) -> None:
    """The sum of two sides, or one alone."""

def add_backward(
    shape: Shape, g: int, g_pixel: int, sides: list[tuple[Side, int, int, int, bool]], threads: int
) -> None:
    """The gradients of the sources of one side or both: of each dz, its pixel, d_affine, whether added to."""

def average_forward(shape: Shape, z: int, pixel: int, out: int, threads: int) -> None:
    """The mean of relu(z) over pixels."""

def average_backward(
    shape: Shape, z: int, pixel: int, g: int, dz: int, dz_pixel: int, accumulate: bool, threads: int
) -> None:
    """The gradient of z from that of the mean."""

def augment(
    shape: tuple[int, ...],
    known: int,
    padding: int,
    cutout: int,
    images: int,
    rows: int,
    table: int,
    value_size: int,
    out: int,
    threads: int,
) -> None: ...

class Tape:
    """Calls of this module in their order, to be made again with the same addresses and threads."""

    @property
    def records(self) -> bool:
        """Whether this thread's calls are being added to it."""

    def __len__(self) -> int: ...
    def run(self) -> None:
        """Make the calls again."""

def record(tape: Tape | None) -> None:
    """Add this thread's calls from now on to a tape, as long as it lives; None: to none."""
