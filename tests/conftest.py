"""Before anything imports PyTorch or Triton: how many threads it may use; kernels are interpreted."""

import os

from hypothesis import settings

os.environ["TRITON_INTERPRET"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:
    # Where tests run on every core, threads of one wait in loops for threads of others: 20 times as long.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes is the machine's business.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
