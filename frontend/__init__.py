"""onnxtape: training steps written in Python, compiled to plain ONNX.

Everything here is loaded on first use, so that `import onnxtape` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from onnxtape import data, debugging, errors, ops
    from onnxtape.engine import convert_to_tensor
    from onnxtape.function import function, run_functions_eagerly
    from onnxtape.ops import stop_gradient
    from onnxtape.signature import TensorSpec
    from onnxtape.tape import GradientTape
    from onnxtape.tensor import Tensor
    from onnxtape.variable import Variable

_MODULES = ("data", "debugging", "errors", "ops")
_MEMBERS = {
    "convert_to_tensor": "engine",
    "function": "function",
    "run_functions_eagerly": "function",
    "stop_gradient": "ops",
    "TensorSpec": "signature",
    "GradientTape": "tape",
    "Tensor": "tensor",
    "Variable": "variable",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"onnxtape.{name}")
    if name in _MEMBERS:
        member = getattr(importlib.import_module(f"onnxtape.{_MEMBERS[name]}"), name)
        globals()[name] = member
        return member
    raise AttributeError(f"module 'onnxtape' has no attribute '{name}'")
