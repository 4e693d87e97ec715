"""Where Keras's names are in onnxtape."""

from __future__ import annotations

import importlib
import operator
from typing import Any

import onnxtape as ot


def resolve(path: str) -> Any:
    """The module or member of onnxtape; None where there is none."""
    try:
        return operator.attrgetter(path)(ot)
    except AttributeError:
        pass
    try:
        return importlib.import_module(f"onnxtape.{path}")
    except ModuleNotFoundError:
        return None
