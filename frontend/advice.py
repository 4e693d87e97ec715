"""What to write instead where Python asks a traced tensor for its value: by what asked."""

from __future__ import annotations

import importlib
import re

from onnxtape import context

BRANCH = (
    "Write ops.where(condition, a, b) instead of `if` (ot.cond for whole branches, "
    "ot.while_loop for loops)"
)
LOOK = (
    "Return the value from the step and look at it there; what the step computes with it stays a "
    "tensor"
)
INDEX = "Use ops.take(x, i) for an index, ot.fori_loop for range(), and ops.shape(x) for sizes"


def instead_of_numbers() -> str:
    """What to write for a function of plain numbers, by the user's line: of `math`, say."""
    return _of_module(r"math", "math works on Python numbers") or LOOK


def instead_of_numpy() -> str:
    """What to write for a function of NumPy, by the user's line."""
    why = "no gradient flows through NumPy"
    return _of_module(r"np|numpy", why) or f"Use the functions of ot.ops: {why}"


def _of_module(module: str, why: str) -> str:
    """The operation of the same name as a function of the module that the user's line calls."""
    ops = importlib.import_module("onnxtape.ops")
    for call, name in re.findall(rf"\b((?:{module})\.(\w+))\(", context.user_source()):
        if name in ops.__all__:
            return f"Use ops.{name} instead of {call}: {why}"
    return ""
