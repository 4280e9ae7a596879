# cython: language_level=3, boundscheck=False, wraparound=False
# distutils: language = c++
"""Compiled half of pnas_fast.kernels.cpu, which checks what it is given and owns the memory.

Tensors are addresses of float32 data; 0 stands for none. An affine (2, C) is one address: scale, then
shift. Everything here trusts its caller.
"""

from libc.stddef cimport ptrdiff_t, size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool


cdef extern from "cpu/augment.hpp" namespace "pnas::cpu" nogil:
    cdef struct AugmentShape:
        int images, channels, height, width, padding, cutout

    cdef struct AugmentRow:
        pass

    void cpp_augment "pnas::cpu::augment"[T](
        const AugmentShape&, const uint8_t* images, const AugmentRow*, const T* table, T* out, int threads
    ) except +


cdef extern from "cpu/run.hpp" namespace "pnas::cpu" nogil:
    cdef struct Source:
        const float* z
        ptrdiff_t pixel
        const float* scale
        const float* shift

    cdef cppclass CppWindow "pnas::cpu::Window":
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
        bool training
        float* dgamma
        float* dbeta

    cdef struct Kernels:
        const char* name

    ctypedef void (*ParallelEntry)(void (*)(void*), void*, unsigned, unsigned)
    ParallelEntry g_parallel_entry
    const Kernels& kernels()
    void cpp_convolution_forward "pnas::cpu::convolution_forward"(
        Kind, const CppWindow&, const Source&, const Weight*, const Output&, const Norm*, int threads
    ) except +
    void cpp_convolution_backward "pnas::cpu::convolution_backward"(
        Kind, const CppWindow&, const Source&, const Weight*, Incoming, const NormGradient*, SourceGradient,
        const Weight* gradients, int threads
    ) except +
    void run_add_forward(const AddShape&, const AddSide*, int count, const Output&, int threads) except +
    void run_add_backward(
        const AddShape&, const AddSide&, const float* g, ptrdiff_t g_pixel, const SourceGradient&, int threads
    ) except +
    void run_average_forward(const AddShape&, const Source&, float* out, int threads) except +
    void run_average_backward(
        const AddShape&, const Source&, const float* g, const SourceGradient&, int threads
    ) except +


def share_threads(size_t entry):
    """Use the OpenMP runtime whose ``GOMP_parallel`` is at this address; 0: threads of our own."""
    global g_parallel_entry
    g_parallel_entry = <ParallelEntry> <void*> entry


def instruction_set():
    """The name of the instruction set in use."""
    return kernels().name.decode()


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
        cdef Weight given[2]
        _take_weights(weights, given)
        cdef Source source = _source(z, pixel, affine, self.w.channels)
        cdef Output output = Output(<float*> out, self.w.filters)
        with nogil:
            cpp_convolution_forward(self.kind, self.w, source, given, output, NULL, threads)

    def forward_normalised(
        self, size_t z, ptrdiff_t pixel, size_t affine, tuple weights, size_t out,
        size_t gamma, size_t beta, size_t running_mean, size_t running_variance, double momentum,
        double epsilon, bint training, size_t out_affine, size_t out_statistics, int threads
    ):
        """Write the packed output, its norm's affine (2, F), and statistics (2, F): mean and 1 / std."""
        cdef Weight given[2]
        _take_weights(weights, given)
        cdef Source source = _source(z, pixel, affine, self.w.channels)
        cdef Output output = Output(<float*> out, self.w.filters)
        cdef Norm norm
        norm.gamma, norm.beta = <const float*> gamma, <const float*> beta
        norm.running_mean, norm.running_variance = <float*> running_mean, <float*> running_variance
        norm.momentum, norm.epsilon, norm.training = momentum, epsilon, training
        norm.mean, norm.scale = <float*> out_statistics, <float*> out_affine
        norm.rstd, norm.shift = norm.mean + self.w.filters, norm.scale + self.w.filters
        with nogil:
            cpp_convolution_forward(self.kind, self.w, source, given, output, &norm, threads)

    def backward(
        self, size_t z, ptrdiff_t pixel, size_t affine, tuple weights,
        size_t out, size_t g, ptrdiff_t g_pixel,
        size_t gamma, size_t statistics, size_t d_out_affine, bint training, size_t d_gamma, size_t d_beta,
        size_t dz, ptrdiff_t dz_pixel, size_t d_affine, bint accumulate, tuple d_weights, int threads
    ):
        """Gradients of source (unless dz is 0), weights, and norm (unless gamma is 0)."""
        cdef Weight given[2]
        cdef Weight gradients[2]
        _take_weights(weights, given)
        _take_weights(d_weights, gradients)
        cdef int filters = self.w.filters
        cdef Source source = _source(z, pixel, affine, self.w.channels)
        cdef SourceGradient gradient = _gradient(dz, dz_pixel, d_affine, self.w.channels, accumulate)
        cdef Incoming incoming = Incoming(<const float*> g, g_pixel, <const float*> out, filters, NULL, NULL)
        cdef NormGradient norm
        norm.gamma, norm.training = <const float*> gamma, training
        norm.mean, norm.dscale = <const float*> statistics, <const float*> d_out_affine
        norm.rstd, norm.dshift = norm.mean + filters, norm.dscale + filters
        norm.dgamma, norm.dbeta = <float*> d_gamma, <float*> d_beta
        with nogil:
            cpp_convolution_backward(
                self.kind, self.w, source, given, incoming, &norm if gamma else NULL, gradient, gradients,
                threads
            )


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
    cdef AddShape size = AddShape(shape[0], shape[1], shape[2], shape[3])
    cdef Output output = Output(<float*> out, out_pixel)
    cdef AddSide sides[2]
    cdef int count = 1
    sides[0] = left.side
    if right is not None:
        sides[1] = right.side
        count = 2
    with nogil:
        run_add_forward(size, sides, count, output, threads)


def add_backward(
    tuple shape, Side side not None, size_t g, ptrdiff_t g_pixel,
    size_t dz, ptrdiff_t dz_pixel, size_t d_affine, bint accumulate, int threads
):
    """The gradient of one side's source; shape (N, C, H, W) is the sum's."""
    cdef AddShape size = AddShape(shape[0], shape[1], shape[2], shape[3])
    cdef SourceGradient gradient = _gradient(dz, dz_pixel, d_affine, size.channels, accumulate)
    with nogil:
        run_add_backward(size, side.side, <const float*> g, g_pixel, gradient, threads)


def average_forward(tuple shape, size_t z, ptrdiff_t pixel, size_t out, int threads):
    """The mean of relu(z) over pixels, (N, C); shape (N, C, H, W) is that of z."""
    cdef AddShape size = AddShape(shape[0], shape[1], shape[2], shape[3])
    cdef Source source = _source(z, pixel, 0, size.channels)
    with nogil:
        run_average_forward(size, source, <float*> out, threads)


def average_backward(
    tuple shape, size_t z, ptrdiff_t pixel, size_t g, size_t dz, ptrdiff_t dz_pixel, bint accumulate,
    int threads
):
    """The gradient of z from that of the mean."""
    cdef AddShape size = AddShape(shape[0], shape[1], shape[2], shape[3])
    cdef Source source = _source(z, pixel, 0, size.channels)
    cdef SourceGradient gradient = _gradient(dz, dz_pixel, 0, size.channels, accumulate)
    with nogil:
        run_average_backward(size, source, <const float*> g, gradient, threads)


def augment(
    tuple shape, int padding, int cutout, size_t images, size_t rows, size_t table, int value_size,
    size_t out, int threads
):
    """A batch of shape (N, C, H, W), its values of 2, 4 or 8 bytes; see pnas_fast.kernels.augment."""
    cdef AugmentShape size = AugmentShape(shape[0], shape[1], shape[2], shape[3], padding, cutout)
    cdef const uint8_t* pixels = <const uint8_t*> images
    cdef const AugmentRow* choices = <const AugmentRow*> rows
    with nogil:
        if value_size == 2:
            cpp_augment[uint16_t](size, pixels, choices, <const uint16_t*> table, <uint16_t*> out, threads)
        elif value_size == 4:
            cpp_augment[uint32_t](size, pixels, choices, <const uint32_t*> table, <uint32_t*> out, threads)
        else:
            cpp_augment[uint64_t](size, pixels, choices, <const uint64_t*> table, <uint64_t*> out, threads)
