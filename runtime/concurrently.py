"""Running several sessions at the same time, each on a thread of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue


class _Worker:
    """A thread that runs what it is handed, one after the other.

    A queue and a lock take 30 microseconds there and back; an executor's future takes 60.
    """

    def __init__(self) -> None:
        self._handed: SimpleQueue[_Task] = SimpleQueue()
        threading.Thread(target=self._loop, name="onnxtape", daemon=True).start()

    def _loop(self) -> None:
        while True:
            self._handed.get().run()

    def hand(self, task: _Task) -> None:
        self._handed.put(task)


class _Task:
    """A call, and whether it has been made."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._running = threading.Lock()
        self._running.acquire()
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            self._call()
        except Exception as error:
            self.failure = error
        finally:
            self._running.release()

    def wait(self) -> None:
        """Wait until it has run, through Ctrl-C too, which is raised afterwards."""
        interrupted: KeyboardInterrupt | None = None
        while True:
            try:
                # Given back at once: Ctrl-C may come in between, and then it is taken again.
                with self._running:
                    pass
                break
            except KeyboardInterrupt as error:
                interrupted = error
        if interrupted is not None:
            raise interrupted


#: The threads of the process: as many as any step has needed so far.
_workers: list[_Worker] = []

if hasattr(os, "register_at_fork"):
    # A forked process has none of them.
    os.register_at_fork(after_in_child=_workers.clear)


def run_together(calls: Sequence[Callable[[], object]]) -> None:
    """Make all calls at the same time, the first one in this thread, and wait for all.

    Raises:
        Exception: what the first that failed has raised, when none is running any more.
    """
    first, *others = map(_Task, calls)
    while len(_workers) < len(others):
        _workers.append(_Worker())
    for worker, task in zip(_workers, others, strict=False):
        worker.hand(task)
    try:
        first.run()
    finally:
        for task in others:
            task.wait()
    for task in (first, *others):
        if task.failure is not None:
            raise task.failure
