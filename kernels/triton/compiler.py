"""A process that compiles kernels into Triton's cache, one after the other.

``python -m pnas_fast.kernels.triton.compiler 90`` reads variants from standard input, one JSON object a
line, and answers each with ``{"cached": …}``, or with ``{"error": …}``. Other output goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch
import triton

from pnas_fast.kernels.triton._triton_internals import build_launcher
from pnas_fast.kernels.triton.aot import variant_from


def main() -> None:
    """Serve until standard input ends."""
    architecture = int(sys.argv[1])
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    hits: list[bool] = []

    def listen(*, cache_hit: bool, **others: Any) -> None:
        hits.append(cache_hit)

    triton.knobs.compilation.listener = listen
    for line in sys.stdin:
        hits.clear()
        try:
            compiled = variant_from(json.loads(line)).build(architecture)
            if torch.cuda.is_available():
                build_launcher(compiled)
            answer: dict[str, Any] = {"cached": all(hits)}
        except Exception as error:  # the others are compiled all the same
            answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
        replies.write(json.dumps(answer) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
