# cython: language_level=3, boundscheck=True, wraparound=False
# distutils: language = c++
"""Compiled half of pnas_fast.candidates, which is the public interface and checks what it is given.

Types and shapes are checked here too. Codes handed to this module must be in range: an operation code outside
0 to 7, or an input that is not there, is undefined behaviour.
"""

from libc.stdint cimport int8_t, int32_t, int64_t, uint64_t
from libcpp.memory cimport unique_ptr

import numpy as np


cdef extern from "candidates.hpp" namespace "pnas" nogil:
    cdef cppclass Selection:
        int64_t size()

    cdef cppclass CppExpander "pnas::Expander":
        CppExpander(const int8_t* codes, int64_t parents, int blocks) except +
        Selection select(int64_t first, int64_t last, unsigned operations, int threads) except +
        void write(const Selection& selection, int8_t* codes, int32_t* parent, int threads) except +

    void write_keys "pnas::canonical_keys"(
        const int8_t* codes, int64_t cells, int blocks, uint64_t* keys, int threads
    ) except +


cdef int _check(const int8_t[:, :, ::1] codes, int most) except -1:
    if codes.shape[2] != 4 or not 1 <= codes.shape[1] <= most:
        raise ValueError(
            f"codes are of shape ({codes.shape[0]}, {codes.shape[1]}, {codes.shape[2]}), "
            f"allowed is (M, b, 4), b from 1 to {most}"
        )
    return 0


cdef class Expander:
    """The parents int8 (M, b, 4), M >= 1 and 1 <= b <= 4, ready to be expanded range by range."""

    cdef const int8_t[:, :, ::1] codes
    cdef unique_ptr[CppExpander] engine

    def __cinit__(self, const int8_t[:, :, ::1] codes not None):
        _check(codes, 4)
        cdef const int8_t* start = &codes[0, 0, 0]
        cdef int64_t parents = codes.shape[0]
        cdef int blocks = <int> codes.shape[1]
        self.codes = codes
        with nogil:
            self.engine.reset(new CppExpander(start, parents, blocks))

    def expand(self, int64_t first, int64_t last, unsigned operations, int threads):
        """Candidates of parents first to last - 1: codes int8 (m, b + 1, 4) and parent int32 (m,).

        Bit i of operations allows the new block to use operation code i.
        """
        if not 0 <= first <= last <= self.codes.shape[0]:
            raise IndexError(f"parents {first} to {last} of {self.codes.shape[0]}")
        cdef Selection selection
        with nogil:
            selection = self.engine.get().select(first, last, operations, threads)
        out_codes = np.empty((selection.size(), self.codes.shape[1] + 1, 4), np.int8)
        out_parent = np.empty(selection.size(), np.int32)
        cdef int8_t[:, :, ::1] code_view = out_codes
        cdef int32_t[::1] parent_view = out_parent
        if selection.size() > 0:
            with nogil:
                self.engine.get().write(selection, &code_view[0, 0, 0], &parent_view[0], threads)
        return out_codes, out_parent


def canonical_keys(const int8_t[:, :, ::1] codes not None, int threads):
    """Canonical keys uint64 (M,) of cells int8 (M, b, 4), 1 <= b <= 5."""
    _check(codes, 5)
    keys = np.empty(codes.shape[0], np.uint64)
    cdef uint64_t[::1] view = keys
    if codes.shape[0] > 0:
        with nogil:
            write_keys(&codes[0, 0, 0], codes.shape[0], <int> codes.shape[1], &view[0], threads)
    return keys
