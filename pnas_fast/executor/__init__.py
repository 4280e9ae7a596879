"""Running children in worker processes."""

from pnas_fast.executor.messages import Task
from pnas_fast.executor.pool import Event, ExecutorError, Finished, Progress, Started, WorkerPool

__all__ = ["Event", "ExecutorError", "Finished", "Progress", "Started", "Task", "WorkerPool"]
