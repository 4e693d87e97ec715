"""Making the next elements on a background thread."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from queue import SimpleQueue

from onnxtape.data.stages import OneToOne, Run, Stage

# How long leaving a loop waits for the element that is being made. A slower one ends its thread
# when it is done, without anybody waiting.
_STOP_SECONDS = 2.0


@dataclass(frozen=True, eq=False)
class Prefetch(OneToOne):
    """Walks the upstream on a thread of its own, at most `buffer_size` runs ahead."""

    buffer_size: int

    def runs(self) -> Iterator[Run]:
        return _Prefetcher(self.upstream, self.buffer_size)


@dataclass(frozen=True, eq=False)
class _End:
    """The last thing a producer hands over: why there is no more."""

    error: BaseException | None


class _Prefetcher(Iterator[Run]):
    """The consumer's end of the thread, which stops when this is exhausted, dropped, or at exit.

    The thread needs a permit for each run beyond the first; consuming a run gives one back. The
    thread never refers to this object, so that dropping it, by leaving a loop for example, is
    enough to end the thread.
    """

    def __init__(self, upstream: Stage, buffer_size: int) -> None:
        self._ready: SimpleQueue[Run | _End] = SimpleQueue()
        self._permits: SimpleQueue[None] = SimpleQueue()
        for _ in range(buffer_size - 1):
            self._permits.put(None)
        stopped = threading.Event()
        thread = threading.Thread(
            target=_produce,
            args=(upstream, self._ready, self._permits, stopped),
            name="onnxtape-prefetch",
            daemon=True,  # the finalizer ends it at exit; a stuck upstream must not
        )
        thread.start()
        self._close = weakref.finalize(self, _stop, stopped, self._permits, thread)

    def __next__(self) -> Run:
        if not self._close.alive:
            raise StopIteration
        run = self._ready.get()
        if not isinstance(run, _End):
            self._permits.put(None)
            return run
        self._close()
        error = run.error
        del run
        if error is None:
            raise StopIteration
        try:
            raise error
        finally:
            del error  # its traceback holds this frame


def _produce(
    upstream: Stage,
    ready: SimpleQueue[Run | _End],
    permits: SimpleQueue[None],
    stopped: threading.Event,
) -> None:
    try:
        for run in upstream.runs():
            ready.put(run)
            del run  # while this waits, only the consumer decides how long the run lives
            permits.get()
            if stopped.is_set():
                break
        ready.put(_End(None))
    except BaseException as error:
        ready.put(_End(error))


def _stop(stopped: threading.Event, permits: SimpleQueue[None], thread: threading.Thread) -> None:
    stopped.set()
    permits.put(None)
    if thread is not threading.current_thread():  # the garbage collector runs on any thread
        thread.join(_STOP_SECONDS)
