"""Ray clusters of several nodes on one machine, as small as they can be, by Ray's own test tool."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_STORE = 80 * 2**20


@contextmanager
def cluster(nodes: int) -> Iterator[Any]:
    """A head without places for children, and nodes of one each; whatever happens nothing of it is left."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - or whatever else the machine does comes first
    head = {"num_cpus": 0, "object_store_memory": _STORE, "include_dashboard": False}
    before = signal.getsignal(signal.SIGTERM)
    made = Cluster(initialize_head=True, head_node_args=head)
    signal.signal(signal.SIGTERM, before)  # which Ray takes for itself
    try:
        for _ in range(nodes):
            add_node(made)
        yield made
    finally:
        made.shutdown()


def add_node(made: Any) -> Any:
    return made.add_node(num_cpus=1, object_store_memory=_STORE)
