"""Before anything imports Triton: its kernels run in its interpreter here."""

import os

os.environ["TRITON_INTERPRET"] = "1"
