"""Types of the compiled module, whose source is csrc/candidates.pyx."""

import numpy as np
import numpy.typing as npt

class Expander:
    """Parents ready to be expanded range by range."""

    def __init__(self, codes: npt.NDArray[np.int8]) -> None: ...
    def expand(
        self, first: int, last: int, operations: int, threads: int
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int32]]:
        """Candidates of parents first to last - 1: codes and parent. Bit i of operations allows code i."""

def canonical_keys(codes: npt.NDArray[np.int8], threads: int) -> npt.NDArray[np.uint64]:
    """Canonical keys of cells."""
