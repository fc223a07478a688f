"""Where jobs run: in this process, in worker processes of this machine, or on Ray."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from typing import Any, Literal, TypeVar, cast, get_args

from cgankd.shardset.errors import BadInput, CgankdError

Backend = Literal["serial", "processes", "ray"]
KILLED = (
    "a worker process was killed, often for want of memory; finished work is kept: run the same "
    "command again, with a smaller --workers (1: one stage after the other)"
)
Ended = Generator[tuple[int, Any], None, None]  # the index and result of each job as it ends
Job = TypeVar("Job")
Result = TypeVar("Result")


def map_jobs(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    workers: int = 1,
    backend: Backend = "processes",
    threads: int = 1,
    gpus: float = 0.0,
    kept: "Workers | None" = None,
    on_done: Callable[[int, Result], None] = lambda _index, _result: None,
) -> list[Result]:
    """The results of a function over jobs, in the jobs' order, whatever order they end in.

    The function and its jobs are pickled for `processes` and `ray`: a module's own function and
    plain records. `threads` is what torch uses inside one job, `gpus` the share of a GPU one job
    holds on Ray (the other backends see every GPU). `kept` are processes that are there already, of
    their own number and threads. `on_done(index, result)` is called here, in
    this process, as each job ends. A job's own error arrives as it was raised; the first one ends
    the remaining jobs, and so does Ctrl-C. Jobs must leave whole files or none, because workers
    end at once; a worker that dies by itself is a `CgankdError` (on Ray its job is tried again).
    """
    require_backend(backend)
    if not jobs:
        return []
    if backend == "serial":
        ended = _serial(function, jobs, threads)
    elif backend == "processes" and kept is not None:
        ended = kept.ended(function, jobs)
    elif backend == "processes":
        ended = _processes(function, jobs, workers, threads)
    else:
        ended = _ray(function, jobs, workers, threads, gpus)
    results: dict[int, Result] = {}
    try:
        for index, result in ended:
            results[index] = result
            on_done(index, result)
    finally:
        ended.close()  # an error of on_done ends the workers too
    return [results[index] for index in range(len(jobs))]


def require_backend(backend: str) -> Backend:
    """The backend of this name; `BadInput` where it is misspelt or its extra is not installed."""
    if backend not in get_args(Backend):
        expected = ", ".join(get_args(Backend))
        raise BadInput(f"backend {backend!r}: expected one of {expected}")
    if backend == "ray":
        try:
            import ray  # noqa: F401
        except ModuleNotFoundError as error:
            raise BadInput(
                "backend 'ray' needs the extra of that name: pip install 'cgankd[ray]'"
            ) from error
    return cast(Backend, backend)


def _serial(function: Callable[[Any], Any], jobs: Sequence[Any], threads: int) -> Ended:
    from cgankd.nets.device import threads as torch_threads

    with torch_threads(threads):
        for index, job in enumerate(jobs):
            yield index, function(job)


def _processes(
    function: Callable[[Any], Any], jobs: Sequence[Any], workers: int, threads: int
) -> Ended:
    own = Workers(min(workers, len(jobs)), threads)
    try:
        yield from own.ended(function, jobs)
    finally:
        own.end()


def spawning() -> SpawnContext:
    """How processes are begun: a forked child of one with OpenMP or CUDA threads can hang.

    Workers end at once when this process does; what semaphores they leave, Python's tracker takes
    away, and need not say so after the last line of ours.
    """
    os.environ.setdefault("PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.resource_tracker")
    return multiprocessing.get_context("spawn")


class Workers:
    """Worker processes that take jobs until they are ended; each starts when there is a job for it.

    Starting one costs seconds, most of them for importing torch.
    """

    def __init__(self, count: int, threads: int = 1) -> None:
        context = spawning()
        # Nothing is ever sent. Workers wait for the end of this pipe, which comes when this process
        # closes it or dies, kill -9 included: no orphan goes on writing under a later run.
        self._lifeline, self._ours = context.Pipe(duplex=False)
        self._executor = ProcessPoolExecutor(
            count, context, initializer=begin_worker, initargs=(self._lifeline, threads)
        )
        self.usable = True

    def ended(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Ended:
        """The index and result of each job as it ends. An error, or leaving off, ends the workers
        at once: they would work on.
        """
        whole = False
        try:
            indices = {self._executor.submit(function, job): i for i, job in enumerate(jobs)}
            for future in as_completed(indices):
                yield indices.pop(future), future.result()
            whole = True
        except BrokenProcessPool:
            raise CgankdError(KILLED) from None
        finally:
            if not whole:
                self.end()

    def end(self) -> None:
        """Ends the processes, whatever they do."""
        if self.usable:
            self.usable = False
            self._ours.close()
            self._executor.shutdown(cancel_futures=True)
            self._lifeline.close()


def begin_worker(lifeline: Connection, threads: int) -> None:
    """Prepares a worker process: Ctrl-C is the parent's business, torch uses so many threads."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()
    import torch

    from cgankd.shardset.tables import without_pandas

    without_pandas()
    torch.set_num_threads(threads)


def _end_with_parent(lifeline: Connection) -> None:
    lifeline.poll(None)
    os._exit(1)


def _ray(
    function: Callable[[Any], Any], jobs: Sequence[Any], workers: int, threads: int, gpus: float
) -> Ended:
    import ray
    from ray.exceptions import OutOfMemoryError, RayTaskError, WorkerCrashedError

    with _ray_cluster(workers * threads):
        remote = ray.remote(_with_threads).options(num_cpus=threads, num_gpus=gpus, max_retries=3)
        waiting = {remote.remote(function, job, threads): index for index, job in enumerate(jobs)}
        try:
            while waiting:
                (reference,), _ = ray.wait(list(waiting), num_returns=1)
                try:
                    result = ray.get(reference)
                except RayTaskError as error:
                    raise error.cause from None
                except (WorkerCrashedError, OutOfMemoryError):
                    raise CgankdError(
                        f"job {waiting[reference]} lost its Ray worker four times, often for want "
                        "of memory; run the same command again, with a smaller --workers"
                    ) from None
                yield waiting.pop(reference), result
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)


@contextmanager
def _ray_cluster(cpus: int) -> Iterator[None]:
    """The cluster of RAY_ADDRESS or of this process, else one of this machine for the time being.

    Jobs read and write the run folder, so a cluster's machines need it under the same path.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if "RAY_ADDRESS" not in os.environ:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
        options |= {"num_cpus": cpus, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    ray.init(**options)
    try:
        yield
    finally:
        ray.shutdown()


def _with_threads(function: Callable[[Any], Any], job: Any, threads: int) -> Any:
    import torch

    torch.set_num_threads(threads)
    return function(job)
