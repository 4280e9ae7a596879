# cython: language_level=3, boundscheck=False, wraparound=False
# distutils: language = c++
"""Compiled half of pnas_fast.kernels.cpu, which checks what it is given and owns the memory.

Tensors are addresses of float32 data; 0 stands for none. An affine (2, C) is one address: scale, then
shift. Everything here trusts its caller.
"""

from libc.stddef cimport ptrdiff_t, size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool


cdef extern from "cpu/augment.hpp" namespace "pnas::cpu" nogil:
    cdef struct AugmentShape:
        int images, channels, height, width, padding, cutout, known

    cdef struct AugmentRow:
        pass


cdef extern from "cpu/run.hpp" namespace "pnas::cpu" nogil:
    cdef struct Source:
        const float* z
        ptrdiff_t pixel
        const float* scale
        const float* shift

    cdef struct CppWindow "pnas::cpu::Window":
        int images, height, width, channels, out_height, out_width, filters
        int kernel_height, kernel_width, stride_height, stride_width, dilation
        int top, left, skip
        bool rectify

    cdef struct Output:
        float* z
        ptrdiff_t pixel

    cdef struct Incoming:
        const float* g
        ptrdiff_t g_pixel
        const float* z
        ptrdiff_t z_pixel
        const float* factor
        const float* offset
        const float* slope

    cdef struct Weight:
        float* data
        ptrdiff_t filter, channel, tap

    cdef struct SourceGradient:
        float* z
        ptrdiff_t pixel
        float* scale
        float* shift
        bool accumulate

    cdef enum class Kind(int):
        separable
        dense
        factorized

    cdef enum class Pool(int):
        none
        average
        maximum

    cdef struct AddSide:
        Source source
        Pool pool
        int stride, height, width
        const float* keep

    cdef struct AddShape:
        int images, channels, out_height, out_width

    cdef struct Norm:
        const float* gamma
        const float* beta
        float* running_mean
        float* running_variance
        int64_t* batches
        double momentum, epsilon
        bool training
        float* mean
        float* rstd
        float* scale
        float* shift

    cdef struct NormGradient:
        const float* gamma
        const float* mean
        const float* rstd
        const float* dscale
        const float* dshift
        bool training, pending
        float* dgamma
        float* dbeta

    cdef struct Kernels:
        const char* name

    ctypedef void (*ParallelEntry)(void (*)(void*), void*, unsigned, unsigned)
    ParallelEntry g_parallel_entry
    const Kernels& kernels()
    const char* asked_for()


cdef extern from "cpu/tape.hpp" namespace "pnas::cpu" nogil:
    cdef struct ConvolutionForward:
        Kind kind
        CppWindow window
        Source source
        Weight weights[2]
        Output out
        bool normalised
        Norm norm
        int threads

    cdef struct ConvolutionBackward:
        Kind kind
        CppWindow window
        Source source
        Weight weights[2]
        Incoming incoming
        bool normalised
        NormGradient norm
        SourceGradient gradient
        Weight gradients[2]
        int threads

    cdef struct AddForward:
        AddShape shape
        AddSide sides[2]
        int count
        Output out
        int threads

    cdef struct AddBackward:
        AddShape shape
        AddSide sides[2]
        SourceGradient gradients[2]
        int count
        const float* g
        ptrdiff_t g_pixel
        int threads

    cdef struct AverageForward:
        AddShape shape
        Source source
        float* out
        int threads

    cdef struct AverageBackward:
        AddShape shape
        Source source
        const float* g
        SourceGradient gradient
        int threads

    cdef cppclass CppAugment "pnas::cpu::Augment"[T]:
        AugmentShape shape
        const uint8_t* images
        const AugmentRow* rows
        const T* table
        T* out
        int threads

    cdef cppclass CppTape "pnas::cpu::Tape":
        void run() except +
        int size()

    void cpp_record "pnas::cpu::record"(CppTape*)
    bool cpp_records "pnas::cpu::records"(const CppTape*)
    void perform[Call](const Call&) except +


def share_threads(size_t entry):
    """Use the OpenMP runtime whose ``GOMP_parallel`` is at this address; 0: threads of our own."""
    global g_parallel_entry
    g_parallel_entry = <ParallelEntry> <void*> entry


def instruction_set():
    """The name of the instruction set in use."""
    return kernels().name.decode()


def asked_instruction_set():
    """What the environment variable PNAS_FAST_CPU asks for, empty where it does not."""
    return asked_for().decode(errors="replace")


cdef inline Source _source(size_t z, ptrdiff_t pixel, size_t affine, int channels) noexcept:
    cdef Source source
    cdef const float* scale = <const float*> affine
    source.z, source.pixel, source.scale = <const float*> z, pixel, scale
    source.shift = scale + channels if affine else NULL
    return source


cdef inline SourceGradient _gradient(
    size_t z, ptrdiff_t pixel, size_t affine, int channels, bint accumulate
) noexcept:
    cdef SourceGradient gradient
    cdef float* scale = <float*> affine
    gradient.z, gradient.pixel, gradient.scale = <float*> z, pixel, scale
    gradient.shift = scale + channels if affine else NULL
    gradient.accumulate = accumulate
    return gradient


cdef inline void _take_weights(tuple given, Weight* weights) except *:
    cdef int index
    for index in range(len(given)):
        data, weights[index].filter, weights[index].channel, weights[index].tap = given[index]
        weights[index].data = <float*> <size_t> data


cdef class Convolution:
    """One convolution of tensors of known shapes; see csrc/cpu/geometry.hpp.

    A weight is (address, stride of filters, of channels, of taps); there are two unless kind is dense.
    """

    cdef Kind kind
    cdef CppWindow w

    def __init__(
        self, int kind, *, int images, int height, int width, int channels, int out_height, int out_width,
        int filters, int kernel_height, int kernel_width, int stride_height, int stride_width, int dilation,
        int top, int left, bint rectify
    ):
        self.kind = <Kind> kind
        self.w.images, self.w.height, self.w.width, self.w.channels = images, height, width, channels
        self.w.out_height, self.w.out_width, self.w.filters = out_height, out_width, filters
        self.w.kernel_height, self.w.kernel_width = kernel_height, kernel_width
        self.w.stride_height, self.w.stride_width, self.w.dilation = stride_height, stride_width, dilation
        self.w.top, self.w.left, self.w.skip, self.w.rectify = top, left, 0, rectify

    def forward(
        self, size_t z, ptrdiff_t pixel, size_t affine, tuple weights, size_t out, int threads
    ):
        """Write the packed output; no norm follows."""
        cdef ConvolutionForward call = self._forward(z, pixel, affine, weights, out, threads)
        call.normalised = False
        with nogil:
            perform(call)

    def forward_normalised(
        self, size_t z, ptrdiff_t pixel, size_t affine, tuple weights, size_t out,
        size_t gamma, size_t beta, size_t running_mean, size_t running_variance, size_t batches,
        double momentum, double epsilon, bint training, size_t out_affine, size_t out_statistics, int threads
    ):
        """Write the packed output, its norm's affine (2, F), and statistics (2, F): mean and 1 / std."""
        cdef ConvolutionForward call = self._forward(z, pixel, affine, weights, out, threads)
        call.normalised = True
        call.norm.gamma, call.norm.beta = <const float*> gamma, <const float*> beta
        call.norm.running_mean, call.norm.running_variance = <float*> running_mean, <float*> running_variance
        call.norm.batches = <int64_t*> batches
        call.norm.momentum, call.norm.epsilon, call.norm.training = momentum, epsilon, training
        call.norm.mean, call.norm.scale = <float*> out_statistics, <float*> out_affine
        call.norm.rstd, call.norm.shift = call.norm.mean + self.w.filters, call.norm.scale + self.w.filters
        with nogil:
            perform(call)

    cdef ConvolutionForward _forward(
        self, size_t z, ptrdiff_t pixel, size_t affine, tuple weights, size_t out, int threads
    ) except *:
        cdef ConvolutionForward call
        call.kind, call.window, call.threads = self.kind, self.w, threads
        call.source = _source(z, pixel, affine, self.w.channels)
        call.out = Output(<float*> out, self.w.filters)
        _take_weights(weights, call.weights)
        return call

    def backward(
        self, size_t z, ptrdiff_t pixel, size_t affine, tuple weights,
        size_t out, size_t g, ptrdiff_t g_pixel,
        size_t gamma, size_t statistics, size_t d_out_affine, bint training, bint pending,
        size_t d_gamma, size_t d_beta,
        size_t dz, ptrdiff_t dz_pixel, size_t d_affine, bint accumulate, tuple d_weights, int threads
    ):
        """Gradients of source (unless dz is 0), weights, and norm (unless gamma is 0).

        Where g is pending it has yet to be multiplied by the scale of the norm.
        """
        cdef int filters = self.w.filters
        cdef ConvolutionBackward call
        call.kind, call.window, call.threads = self.kind, self.w, threads
        call.source = _source(z, pixel, affine, self.w.channels)
        _take_weights(weights, call.weights)
        call.incoming = Incoming(<const float*> g, g_pixel, <const float*> out, filters, NULL, NULL, NULL)
        call.normalised = gamma != 0
        call.norm.gamma, call.norm.training, call.norm.pending = <const float*> gamma, training, pending
        call.norm.mean, call.norm.dscale = <const float*> statistics, <const float*> d_out_affine
        call.norm.rstd, call.norm.dshift = call.norm.mean + filters, call.norm.dscale + filters
        call.norm.dgamma, call.norm.dbeta = <float*> d_gamma, <float*> d_beta
        call.gradient = _gradient(dz, dz_pixel, d_affine, self.w.channels, accumulate)
        _take_weights(d_weights, call.gradients)
        with nogil:
            perform(call)


cdef class Side:
    """One side of an addition; see csrc/cpu/sides.hpp. Pools: 0 none, 1 average, 2 maximum."""

    cdef AddSide side

    def __init__(
        self, size_t z, ptrdiff_t pixel, size_t affine, int channels, int height, int width, int pool,
        int stride, size_t keep
    ):
        self.side.source = _source(z, pixel, affine, channels)
        self.side.pool, self.side.stride = <Pool> pool, stride
        self.side.height, self.side.width, self.side.keep = height, width, <const float*> keep


def add_forward(tuple shape, Side left not None, Side right, size_t out, ptrdiff_t out_pixel, int threads):
    """The sum of two sides, or one alone where right is None; shape (N, C, H, W) is the sum's."""
    cdef AddForward call
    call.shape = AddShape(shape[0], shape[1], shape[2], shape[3])
    call.sides[0], call.count = left.side, 1
    if right is not None:
        call.sides[1], call.count = right.side, 2
    call.out, call.threads = Output(<float*> out, out_pixel), threads
    with nogil:
        perform(call)


def add_backward(tuple shape, size_t g, ptrdiff_t g_pixel, list sides, int threads):
    """The gradients of a sum's sides, one or both; shape (N, C, H, W) is the sum's.

    Each side is a tuple of a Side, dz, its pixel, d_affine, and whether these are added to. Where dz is 0, of
    a side without pool and factor, d_affine alone is written.
    """
    cdef AddBackward call
    cdef Side side
    call.shape = AddShape(shape[0], shape[1], shape[2], shape[3])
    call.g, call.g_pixel, call.count, call.threads = <const float*> g, g_pixel, len(sides), threads
    if not 1 <= call.count <= 2:
        raise ValueError(f"{call.count} sides of a sum, allowed are 1 and 2")
    for index in range(call.count):
        side, dz, dz_pixel, d_affine, accumulate = sides[index]
        call.sides[index] = side.side
        call.gradients[index] = _gradient(dz, dz_pixel, d_affine, call.shape.channels, accumulate)
    with nogil:
        perform(call)


def average_forward(tuple shape, size_t z, ptrdiff_t pixel, size_t out, int threads):
    """The mean of relu(z) over pixels, (N, C); shape (N, C, H, W) is that of z."""
    cdef AverageForward call
    call.shape = AddShape(shape[0], shape[1], shape[2], shape[3])
    call.source = _source(z, pixel, 0, call.shape.channels)
    call.out, call.threads = <float*> out, threads
    with nogil:
        perform(call)


def average_backward(
    tuple shape, size_t z, ptrdiff_t pixel, size_t g, size_t dz, ptrdiff_t dz_pixel, bint accumulate,
    int threads
):
    """The gradient of z from that of the mean."""
    cdef AverageBackward call
    call.shape = AddShape(shape[0], shape[1], shape[2], shape[3])
    call.source = _source(z, pixel, 0, call.shape.channels)
    call.g, call.threads = <const float*> g, threads
    call.gradient = _gradient(dz, dz_pixel, 0, call.shape.channels, accumulate)
    with nogil:
        perform(call)


ctypedef fused Value:
    uint16_t
    uint32_t
    uint64_t


cdef int _augment(
    AugmentShape shape, size_t images, size_t rows, size_t table, Value* out, int threads
) except -1 nogil:
    cdef CppAugment[Value] call
    call.shape, call.images, call.rows = shape, <const uint8_t*> images, <const AugmentRow*> rows
    call.table, call.out, call.threads = <const Value*> table, out, threads
    perform(call)
    return 0


def augment(
    tuple shape, int known, int padding, int cutout, size_t images, size_t rows, size_t table, int value_size,
    size_t out, int threads
):
    """A batch of shape (N, C, H, W), its values of 2, 4 or 8 bytes; see pnas_fast.kernels.augment.

    Raises ValueError, now or in a replay, where a row is of none of so many known images.
    """
    cdef AugmentShape size = AugmentShape(shape[0], shape[1], shape[2], shape[3], padding, cutout, known)
    with nogil:
        if value_size == 2:
            _augment(size, images, rows, table, <uint16_t*> out, threads)
        elif value_size == 4:
            _augment(size, images, rows, table, <uint32_t*> out, threads)
        else:
            _augment(size, images, rows, table, <uint64_t*> out, threads)


cdef class Tape:
    """Calls of this module in their order, to be made again with the same addresses and threads.

    Whose memory that is must stay where it is for as long as the tape is used.
    """

    cdef CppTape tape

    def __dealloc__(self):
        if cpp_records(&self.tape):
            cpp_record(NULL)

    @property
    def records(self):
        """Whether this thread's calls are being added to it."""
        return cpp_records(&self.tape)

    def __len__(self):
        return self.tape.size()

    def run(self):
        """Make the calls again."""
        with nogil:
            self.tape.run()


def record(Tape tape):
    """Add this thread's calls from now on to a tape, as long as it lives; None: to none."""
    if tape is None:
        cpp_record(NULL)
    else:
        cpp_record(&tape.tape)
