"""Jobs give the same results in the same order wherever they run, and end when they should."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from cgankd.app.engine import Backend, map_jobs
from cgankd.shardset.errors import BadInput, CgankdError, CorruptShard


def square_later(job: tuple[int, float]) -> int:
    """The square of a number, after a wait."""
    number, seconds = job
    time.sleep(seconds)
    return number * number


def threads_and_process(_job: int) -> tuple[int, int]:
    return torch.get_num_threads(), os.getpid()


def fail_on_two(job: tuple[int, str]) -> int:
    """The number; 2 fails, and others wait long and then leave a file."""
    number, folder = job
    if number == 2:
        raise CorruptShard("pool/000002.tar has 3 samples, marker says 4")
    time.sleep(20 if number > 2 else 0)
    Path(folder, str(number)).touch()
    return number


def die(job: int) -> int:
    """Ends its own process as the kernel does when memory runs out."""
    if job == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return job


def die_once(folder: str) -> str:
    """Ends its own process the first time it is called for a folder."""
    first = Path(folder, "first")
    if not first.exists():
        first.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "second try"


local = pytest.mark.parametrize("backend", ["serial", "processes"])


@local
def test_results_come_in_job_order_and_are_announced_as_they_end(backend: Backend) -> None:
    """A slow first job does not change the order of the list, only that of the announcements."""
    jobs = [(3, 0.5), (4, 0.0), (5, 0.0)]
    announced: dict[int, int] = {}

    results = map_jobs(
        square_later, jobs, workers=2, backend=backend, on_done=announced.__setitem__
    )

    assert results == [9, 16, 25]
    assert announced == {0: 9, 1: 16, 2: 25}
    assert (0 if backend == "serial" else 1) == next(iter(announced))


@local
def test_jobs_use_the_given_threads_in_processes_that_are_gone_afterwards(backend: Backend) -> None:
    """Threads change float bytes, so both backends set them, and this process keeps its own."""
    before = torch.get_num_threads()

    results = map_jobs(threads_and_process, [0, 1], workers=1, backend=backend, threads=3)

    (threads, process) = results[0]
    assert results[1] == (3, process)
    assert threads == 3
    assert torch.get_num_threads() == before
    if backend == "serial":
        assert process == os.getpid()
    else:
        assert not Path(f"/proc/{process}").exists()


@local
def test_the_first_error_arrives_as_raised_and_ends_the_other_jobs(
    backend: Backend, tmp_path: Path
) -> None:
    """Neither waiting nor running jobs are waited for."""
    jobs = [(number, str(tmp_path)) for number in (2, 3, 4)]

    with pytest.raises(CorruptShard, match=r"^pool/000002.tar has 3 samples, marker says 4$"):
        map_jobs(fail_on_two, jobs, workers=2, backend=backend)

    assert list(tmp_path.iterdir()) == []


@local
def test_an_error_of_the_announcement_ends_the_jobs(backend: Backend, tmp_path: Path) -> None:
    """What fails in this process stops the work in the others."""

    def stop(_index: int, _result: int) -> None:
        raise KeyboardInterrupt

    jobs = [(number, str(tmp_path)) for number in (0, 3, 4)]

    with pytest.raises(KeyboardInterrupt):
        map_jobs(fail_on_two, jobs, workers=2, backend=backend, on_done=stop)

    assert [path.name for path in tmp_path.iterdir()] == ["0"]


def test_a_killed_worker_is_an_error_with_advice() -> None:
    """A worker that dies does not hang the run."""
    with pytest.raises(CgankdError, match=r"killed.*smaller --workers"):
        map_jobs(die, [0, 1, 2], workers=2, backend="processes")


SCRIPT = """
import os, sys, time
from pathlib import Path
from cgankd.app.engine import map_jobs

def touch_slowly(folder):
    Path(folder, f"{os.getpid()}.pid").touch()
    time.sleep(2)
    Path(folder, "late").touch()

if __name__ == "__main__":
    map_jobs(touch_slowly, [sys.argv[1]] * 2, workers=2, backend="processes")
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(
    sent: signal.Signals, tmp_path: Path
) -> None:
    """After kill -9 or Ctrl-C no orphan goes on writing into the run folder."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    out = tmp_path / "out"
    out.mkdir()
    process = subprocess.Popen(
        [sys.executable, script, out],
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stderr is not None
    while len(list(out.glob("*.pid"))) < 2:
        assert process.poll() is None
        time.sleep(0.05)

    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)  # as a terminal does: to parent and workers alike
    else:
        process.send_signal(sent)
    messages = process.stderr.read().decode()  # ends when no process holds the pipe any more
    process.stderr.close()
    process.wait()

    assert not (out / "late").exists()
    if sent == signal.SIGINT:
        assert messages.count("Traceback") == 1  # the parent's own KeyboardInterrupt


def test_no_jobs_give_no_results_and_an_unknown_backend_is_refused() -> None:
    """Nothing is started for nothing; a misspelt backend is named with the right ones."""
    assert map_jobs(square_later, [], backend="processes") == []
    with pytest.raises(BadInput, match="'rai': expected one of serial, processes, ray"):
        map_jobs(square_later, [(0, 0.0)], backend="rai")  # type: ignore[arg-type]


def test_ray_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The missing package is met with one line, not a traceback."""
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(BadInput, match=r"pip install 'cgankd\[ray\]'"):
        map_jobs(square_later, [(0, 0.0)], backend="ray")


def local_cluster(ray: Any) -> None:
    """Starts Ray on loopback; a machine that cannot says so within Ray's own time-out."""
    # In the main thread: a Ray that is started by another ends the process with that thread.
    try:
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
        )
    except (OSError, RuntimeError, ray.exceptions.RayError) as error:
        pytest.fail(f"no Ray cluster on this machine: {error}")


def test_ray_gives_the_same_and_tries_a_lost_worker_again(tmp_path: Path) -> None:
    """Order, threads and retries on a real Ray of two processors, on loopback."""
    ray = pytest.importorskip("ray")
    announced: dict[int, int] = {}

    local_cluster(ray)
    try:
        jobs = [(3, 0.5), (4, 0.0)]
        squares = map_jobs(square_later, jobs, backend="ray", on_done=announced.__setitem__)
        ((threads, process),) = map_jobs(threads_and_process, [0], backend="ray", threads=2)
        again = map_jobs(die_once, [str(tmp_path)], backend="ray")
    finally:
        ray.shutdown()

    assert squares == [9, 16]
    assert announced == {0: 9, 1: 16}
    assert threads == 2
    assert process != os.getpid()
    assert again == ["second try"]


def test_an_error_on_ray_arrives_as_raised_and_ends_the_ray_it_started(tmp_path: Path) -> None:
    """Without a cluster at hand one is started for the call, and is gone after it."""
    ray = pytest.importorskip("ray")
    jobs = [(number, str(tmp_path)) for number in (2, 3)]

    with pytest.raises(CorruptShard, match=r"^pool/000002.tar has 3 samples, marker says 4$"):
        map_jobs(fail_on_two, jobs, workers=2, backend="ray")

    assert not ray.is_initialized()
    assert list(tmp_path.iterdir()) == []
