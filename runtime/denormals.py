"""Numbers near zero, taken as zero while a step runs.

A processor of Intel's takes a hundred times as long for a number below 1.2e-38, "denormal" or
"subnormal", as for any other. Steps meet them: ONNX Runtime's exponential of a logit that a mask
has made -1e9, an average of gradients that have been zero for eight hundred steps. TensorFlow and
JAX therefore let the processor read and write zeros instead while they compute, and so do we. How
it does so is a setting of a thread, which must be as it was when Python goes on.

ONNX Runtime sets it for the threads of a session's pool, and then, in the first session of a
process, for the thread that makes it; here that is undone (`unchanged`), and set for the time of a
run (`flushing`). That takes C's `fesetenv` as Linux has it for x86-64; elsewhere nothing is
changed, which on ARM costs nothing.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

#: Bytes of C's fenv_t for x86-64, of which the last four are the register MXCSR.
_SIZE = 32
_MXCSR = 28
#: Its bits for "results that are denormal are zero" and "operands that are denormal are zero".
_FLUSH = 1 << 15 | 1 << 6

_Environment = ctypes.c_char * _SIZE


@cache
def _functions() -> tuple[Any, Any] | None:
    """C's fegetenv and fesetenv; None where they are not known to set this."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return None
    try:
        # Calls of a PyDLL keep Python's lock, which is faster. The interpreter has libm loaded.
        library = ctypes.PyDLL(None)
        return library.fegetenv, library.fesetenv
    except (OSError, AttributeError):
        return None


def can_flush() -> bool:
    """Whether denormal numbers can be taken as zero here for the time of a call."""
    return _functions() is not None


def flushing(call: Callable[..., Any]) -> Callable[..., Any]:
    """The function, within which this thread takes denormal numbers as zero, if it can."""
    functions = _functions()
    if functions is None:
        return call
    get, set_ = functions
    flushed: dict[bytes, Any] = {}  # by what MXCSR is otherwise

    def within(*args: Any) -> Any:
        before = _Environment()
        get(before)
        raw = before.raw
        mxcsr = raw[_MXCSR:]
        if mxcsr not in flushed:
            bits = int.from_bytes(mxcsr, sys.byteorder) | _FLUSH
            made = raw[:_MXCSR] + bits.to_bytes(_SIZE - _MXCSR, sys.byteorder)
            flushed[mxcsr] = _Environment.from_buffer_copy(made)
        set_(flushed[mxcsr])
        try:
            return call(*args)
        finally:
            set_(before)

    return within


@contextmanager
def unchanged() -> Iterator[None]:
    """Put back afterwards how this thread takes denormal numbers."""
    functions = _functions()
    if functions is None:
        yield
        return
    get, set_ = functions
    before = _Environment()
    get(before)
    try:
        yield
    finally:
        set_(before)
