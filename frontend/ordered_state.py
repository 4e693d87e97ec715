"""State files that keep the order of their entries, which the safetensors format does not.

Layers and optimizers that nobody names are counted (`dense_3`, `adam_1`), so a model made twice has
other names the second time. Its variables are found again by their order.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from onnxtape.runtime.checkpoint import load_state, read_metadata, save_state

_ORDER = "onnxtape.weights"
_COUNT = re.compile(r"_\d+(?=[_/]|$)")


def save_ordered(path: str | os.PathLike[str], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays to a state file; `load_ordered` reads them in the same order."""
    save_state(path, arrays, {_ORDER: json.dumps(list(arrays))})


def load_ordered(path: str | os.PathLike[str]) -> tuple[dict[str, npt.NDArray[Any]], bool]:
    """The arrays of a state file, and whether their order is that in which they were saved."""
    found = load_state(path)
    order = json.loads(read_metadata(path).get(_ORDER, "null")) or []
    if sorted(order) != sorted(found):
        return found, False
    return {name: found[name] for name in order}, True


def uncounted(name: str) -> str:
    """A name without the numbers that tell objects of one class apart: `dense_3/kernel` is
    `dense/kernel`."""
    return _COUNT.sub("", name)
