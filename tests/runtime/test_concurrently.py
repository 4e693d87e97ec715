"""Calls on several threads at once."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from onnxtape.runtime.concurrently import run_together


def test_calls_run_at_the_same_time_the_first_in_this_thread() -> None:
    barrier = threading.Barrier(3, timeout=30)
    threads: list[threading.Thread] = []

    def call() -> None:
        barrier.wait()
        threads.append(threading.current_thread())

    for _ in range(3):
        run_together([call] * 3)
    assert len(set(threads)) == 3
    assert threads.count(threading.current_thread()) == 3


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_failure_is_raised_when_all_have_ended(failing: int) -> None:
    ended: list[int] = []

    def call(number: int) -> None:
        if number == failing:
            raise ValueError(f"call {number}")
        time.sleep(0.05)
        ended.append(number)

    with pytest.raises(ValueError, match=f"call {failing}"):
        run_together([lambda n=n: call(n) for n in range(3)])  # type: ignore[misc]
    assert len(ended) == 2


def test_an_interrupt_waits_for_the_others() -> None:
    # Of a process that a shell runs in the background, Ctrl-C is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    ended: list[bool] = []

    def other() -> None:
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        ended.append(True)

    try:
        with pytest.raises(KeyboardInterrupt):
            run_together([lambda: None, other])
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == [True]
    run_together([lambda: None, lambda: ended.append(False)])
    assert ended == [True, False]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own() -> None:
    run_together([lambda: None] * 2)
    child = os.fork()
    if child == 0:
        made: list[int] = []
        run_together([lambda: made.append(1)] * 2)
        os._exit(0 if made == [1, 1] else 1)
    assert os.waitpid(child, 0)[1] == 0
