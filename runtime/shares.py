"""What several threads do at the same time after a step's graph: their shares of its updates."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from onnxtape.runtime.blocks import BoundBlock
from onnxtape.runtime.session import execution_error
from onnxtape.runtime.values import bindings


class _Pool:
    """The threads of the process: as many as any step has needed so far."""

    threads: ThreadPoolExecutor | None = None
    count = 0

    @classmethod
    def at_least(cls, count: int) -> ThreadPoolExecutor:
        if cls.threads is None or cls.count < count:
            # Steps that have the smaller pool keep it.
            cls.threads = ThreadPoolExecutor(count, thread_name_prefix="onnxtape-update")
            cls.count = count
        return cls.threads

    @classmethod
    def forget(cls) -> None:
        """In a forked process, which has none of the threads."""
        cls.threads, cls.count = None, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Pool.forget)


class Share:
    """A session that updates parts of blocks, all of its inputs and outputs.

    Args:
        session: a session with one thread; it keeps to the order of its graph.
        blocks: as the session sees them.
    """

    def __init__(self, session: Any, blocks: Sequence[BoundBlock]) -> None:
        self._blocks = list(blocks)
        self._io = bindings().SessionIOBinding(session._sess)
        self._run = session._sess.run_with_iobinding

    def rebind(self) -> None:
        """Bind blocks that have moved."""
        for block in self._blocks:
            block.rebind(self._io)

    def run(self) -> None:
        self._run(self._io, None)


class Shares:
    """Shares that run at the same time."""

    def __init__(self, shares: Sequence[Share]) -> None:
        self._first, *self._others = shares

    def rebind(self) -> None:
        """Bind blocks that have moved."""
        for share in (self._first, *self._others):
            share.rebind()

    def run(self) -> None:
        """Run all of them; the first one in this thread.

        Raises:
            ExecutionError: ONNX Runtime failed.
        """
        pool = _Pool.at_least(max(1, len(self._others)))
        running = [pool.submit(share.run) for share in self._others]
        failures = []
        for wait in (self._first.run, *(future.result for future in running)):
            # All are waited for: nobody writes into the state any more when this returns.
            try:
                wait()
            except Exception as error:
                failures.append(error)
        if failures:
            raise execution_error(failures[0], "the update failed") from None
