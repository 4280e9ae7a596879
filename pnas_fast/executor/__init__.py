"""Running children in worker processes."""

from pnas_fast.executor.messages import Task
from pnas_fast.executor.pool import (
    Drained,
    Event,
    ExecutorError,
    Finished,
    Progress,
    Started,
    WorkerPool,
)
from pnas_fast.executor.profiling import trace_file
from pnas_fast.executor.shared import read_data, shared_data

__all__ = [
    "Drained",
    "Event",
    "ExecutorError",
    "Finished",
    "Progress",
    "Started",
    "Task",
    "WorkerPool",
    "read_data",
    "shared_data",
    "trace_file",
]
