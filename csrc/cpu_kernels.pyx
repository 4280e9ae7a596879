# cython: language_level=3, boundscheck=False, wraparound=False
# distutils: language = c++
"""Compiled half of pnas_fast.kernels.cpu, which checks what it is given and owns the memory.

Tensors are addresses of float32 data; 0 stands for none. Everything here trusts its caller.
"""

from libc.stddef cimport ptrdiff_t, size_t
from libcpp cimport bool


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

    cdef struct Incoming:
        const float* g
        ptrdiff_t g_pixel
        const float* z
        ptrdiff_t z_pixel
        const float* offset
        const float* slope

    cdef struct SourceGradient:
        float* z
        float* scale
        float* shift
        bool accumulate

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
        float* offset
        float* slope

    cdef struct Kernels:
        const char* name

    ctypedef void (*ParallelEntry)(void (*)(void*), void*, unsigned, unsigned)
    ParallelEntry g_parallel_entry
    const Kernels& kernels()
    void finish_norm(const Norm&, const double* sums, const double* squares, int channels, double count)
    void norm_backward(const NormGradient&, int channels, double count)
    void run_separable_forward(
        const CppWindow&, const Source&, const float*, const float*, float* z, double* sums, int threads
    ) except +
    void run_separable_backward(
        const CppWindow&, const Source&, const float*, const float*, const Incoming&, const SourceGradient&,
        float*, float*, int threads
    ) except +
    void run_dense_forward(
        const CppWindow&, const Source&, const float*, float* z, ptrdiff_t z_pixel, double* sums, int threads
    ) except +
    void run_dense_backward(
        const CppWindow&, const Source&, const float*, const Incoming&, const SourceGradient&, float*,
        int threads
    ) except +
    void run_add_forward(
        const AddShape&, const AddSide*, int count, float* out, ptrdiff_t out_pixel, int threads
    ) except +
    void run_add_backward(
        const AddShape&, const AddSide&, const float* g, ptrdiff_t g_pixel, const SourceGradient&, int threads
    ) except +


def share_threads(size_t entry):
    """Use the OpenMP runtime whose ``GOMP_parallel`` is at this address."""
    global g_parallel_entry
    g_parallel_entry = <ParallelEntry> <void*> entry


def instruction_set():
    """The name of the instruction set in use."""
    return kernels().name.decode()


cdef class Window:
    """The geometry of one convolution; see csrc/cpu/geometry.hpp."""

    cdef CppWindow w

    def __init__(
        self, *, int images, int height, int width, int channels, int out_height, int out_width, int filters,
        int kernel_height, int kernel_width, int stride_height, int stride_width, int dilation,
        int top, int left,
        int skip, bint rectify
    ):
        self.w.images, self.w.height, self.w.width, self.w.channels = images, height, width, channels
        self.w.out_height, self.w.out_width, self.w.filters = out_height, out_width, filters
        self.w.kernel_height, self.w.kernel_width = kernel_height, kernel_width
        self.w.stride_height, self.w.stride_width, self.w.dilation = stride_height, stride_width, dilation
        self.w.top, self.w.left, self.w.skip, self.w.rectify = top, left, skip, rectify

    @property
    def out_shape(self):
        """(images, filters, height, width) of the output."""
        return self.w.images, self.w.filters, self.w.out_height, self.w.out_width

    @property
    def shape(self):
        """(images, channels, height, width) of the input."""
        return self.w.images, self.w.channels, self.w.height, self.w.width


cdef inline Source _source(size_t z, ptrdiff_t pixel, size_t scale, size_t shift) noexcept:
    cdef Source source
    source.z, source.pixel = <const float*> z, pixel
    source.scale, source.shift = <const float*> scale, <const float*> shift
    return source


cdef inline SourceGradient _gradient(size_t z, size_t scale, size_t shift, bint accumulate) noexcept:
    cdef SourceGradient gradient
    gradient.z, gradient.scale, gradient.shift = <float*> z, <float*> scale, <float*> shift
    gradient.accumulate = accumulate
    return gradient


cdef inline Incoming _incoming(
    size_t g, ptrdiff_t g_pixel, size_t z, ptrdiff_t z_pixel, size_t offset, size_t slope
) noexcept:
    cdef Incoming incoming
    incoming.g, incoming.g_pixel = <const float*> g, g_pixel
    incoming.z, incoming.z_pixel = <const float*> z, z_pixel
    incoming.offset, incoming.slope = <const float*> offset, <const float*> slope
    return incoming


def separable_forward(
    Window window, size_t z, ptrdiff_t pixel, size_t scale, size_t shift, size_t depthwise, size_t pointwise,
    size_t out, size_t sums, int threads
):
    """z of a separable half, packed; sums float64 (2, filters) are added to."""
    cdef Source source = _source(z, pixel, scale, shift)
    with nogil:
        run_separable_forward(
            window.w, source, <const float*> depthwise, <const float*> pointwise, <float*> out,
            <double*> sums,
            threads
        )


def separable_backward(
    Window window, size_t z, ptrdiff_t pixel, size_t scale, size_t shift, size_t depthwise, size_t pointwise,
    size_t g, ptrdiff_t g_pixel, size_t out, size_t offset, size_t slope,
    size_t dz, size_t dscale, size_t dshift, size_t d_depthwise, size_t d_pointwise, int threads
):
    """Gradients of a separable half's source and weights from that of its normalised output."""
    cdef Source source = _source(z, pixel, scale, shift)
    cdef Incoming incoming = _incoming(g, g_pixel, out, window.w.filters, offset, slope)
    cdef SourceGradient gradient = _gradient(dz, dscale, dshift, False)
    with nogil:
        run_separable_backward(
            window.w, source, <const float*> depthwise, <const float*> pointwise, incoming, gradient,
            <float*> d_depthwise, <float*> d_pointwise, threads
        )


def dense_forward(
    Window window, size_t z, ptrdiff_t pixel, size_t scale, size_t shift, size_t weight,
    size_t out, ptrdiff_t out_pixel, size_t sums, int threads
):
    """z of a dense convolution; sums float64 (2, filters) are added to."""
    cdef Source source = _source(z, pixel, scale, shift)
    with nogil:
        run_dense_forward(
            window.w, source, <const float*> weight, <float*> out, out_pixel, <double*> sums, threads
        )


def dense_backward(
    Window window, size_t z, ptrdiff_t pixel, size_t scale, size_t shift, size_t weight,
    size_t g, ptrdiff_t g_pixel, size_t out, ptrdiff_t out_pixel, size_t offset, size_t slope,
    size_t dz, size_t dscale, size_t dshift, bint accumulate, size_t d_weight, int threads
):
    """Gradients of a dense convolution's source and weight from that of its normalised output."""
    cdef Source source = _source(z, pixel, scale, shift)
    cdef Incoming incoming = _incoming(g, g_pixel, out, out_pixel, offset, slope)
    cdef SourceGradient gradient = _gradient(dz, dscale, dshift, accumulate)
    with nogil:
        run_dense_backward(
            window.w, source, <const float*> weight, incoming, gradient, <float*> d_weight, threads
        )


def batch_norm(
    size_t sums, size_t squares, int channels, double count, size_t gamma, size_t beta, size_t running_mean,
    size_t running_variance, double momentum, double epsilon, bint training,
    size_t mean, size_t rstd, size_t scale, size_t shift
):
    """Scale and shift of a batch norm, and while training its new running statistics."""
    cdef Norm norm
    norm.gamma, norm.beta = <const float*> gamma, <const float*> beta
    norm.running_mean, norm.running_variance = <float*> running_mean, <float*> running_variance
    norm.momentum, norm.epsilon, norm.training = momentum, epsilon, training
    norm.mean, norm.rstd = <float*> mean, <float*> rstd
    norm.scale, norm.shift = <float*> scale, <float*> shift
    finish_norm(norm, <const double*> sums, <const double*> squares, channels, count)


def batch_norm_backward(
    int channels, double count, bint training, size_t gamma, size_t mean, size_t rstd,
    size_t dscale, size_t dshift,
    size_t dgamma, size_t dbeta, size_t offset, size_t slope
):
    """Gradients of a batch norm's parameters, and the terms its statistics add to each value's."""
    cdef NormGradient n
    n.gamma, n.mean, n.rstd = <const float*> gamma, <const float*> mean, <const float*> rstd
    n.dscale, n.dshift, n.training = <const float*> dscale, <const float*> dshift, training
    n.dgamma, n.dbeta, n.offset, n.slope = <float*> dgamma, <float*> dbeta, <float*> offset, <float*> slope
    norm_backward(n, channels, count)


cdef class Side:
    """One side of an addition; see csrc/cpu/sides.hpp."""

    cdef AddSide side

    def __init__(
        self, size_t z, ptrdiff_t pixel, size_t scale, size_t shift, int pool, int stride,
        int height, int width,
        size_t keep
    ):
        self.side.source = _source(z, pixel, scale, shift)
        self.side.pool, self.side.stride = <Pool> pool, stride
        self.side.height, self.side.width, self.side.keep = height, width, <const float*> keep


def add_forward(
    int images, int channels, int height, int width, Side left not None, Side right, size_t out,
    ptrdiff_t out_pixel,
    int threads
):
    """The sum of two sides, or one side alone where right is None."""
    cdef AddShape shape = AddShape(images, channels, height, width)
    cdef AddSide sides[2]
    cdef int count = 1
    sides[0] = left.side
    if right is not None:
        sides[1] = right.side
        count = 2
    with nogil:
        run_add_forward(shape, sides, count, <float*> out, out_pixel, threads)


def add_backward(
    int images, int channels, int height, int width, Side side not None, size_t g, ptrdiff_t g_pixel,
    size_t dz, size_t dscale, size_t dshift, int threads
):
    """The gradient of one side's source, packed, and of its scale and shift."""
    cdef AddShape shape = AddShape(images, channels, height, width)
    cdef SourceGradient gradient = _gradient(dz, dscale, dshift, False)
    with nogil:
        run_add_backward(shape, side.side, <const float*> g, g_pixel, gradient, threads)
