"""Running several sessions at the same time, each on a thread of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor


class _Pool:
    """The threads of the process: as many as any step has needed so far."""

    threads: ThreadPoolExecutor | None = None
    count = 0

    @classmethod
    def at_least(cls, count: int) -> ThreadPoolExecutor:
        if cls.threads is None or cls.count < count:
            # Steps that have the smaller pool keep it.
            cls.threads = ThreadPoolExecutor(count, thread_name_prefix="onnxtape")
            cls.count = count
        return cls.threads

    @classmethod
    def forget(cls) -> None:
        """In a forked process, which has none of the threads."""
        cls.threads, cls.count = None, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Pool.forget)


def run_together(runs: Sequence[Callable[[], object]]) -> None:
    """Call all of them at the same time, the first one in this thread, and wait for all.

    Raises:
        Exception: what the first that failed has raised, when none is running any more.
    """
    first, *others = runs
    pool = _Pool.at_least(max(1, len(others)))
    running = [pool.submit(run) for run in others]
    failures = []
    for wait in (first, *(future.result for future in running)):
        try:
            wait()
        except Exception as error:
            failures.append(error)
    if failures:
        raise failures[0]
