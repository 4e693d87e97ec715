"""onnxtape: training steps written in Python, compiled to plain ONNX.

Everything here is loaded on first use, so that `import onnxtape` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from onnxtape import (
        activations,
        data,
        debugging,
        errors,
        initializers,
        layers,
        losses,
        metrics,
        ops,
        optimizers,
        random,
    )
    from onnxtape.compiled_function import (
        function,
        run_functions_eagerly,
    )
    from onnxtape.custom_gradients import custom_gradient
    from onnxtape.engine import convert_to_tensor
    from onnxtape.errors import FallbackWarning
    from onnxtape.functional import Input
    from onnxtape.models import Model, Sequential
    from onnxtape.ops import stop_gradient
    from onnxtape.random import set_seed
    from onnxtape.recomputation import recompute
    from onnxtape.runtime import TrainingSession
    from onnxtape.signature import TensorSpec
    from onnxtape.state import (
        restore_checkpoint,
        save_checkpoint,
    )
    from onnxtape.tape import GradientTape
    from onnxtape.tensor import Tensor
    from onnxtape.transforms import grad, hessian, jacobian, jvp, value_and_grad, vjp
    from onnxtape.variable import Variable

_MODULES = (
    "activations",
    "data",
    "debugging",
    "errors",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "ops",
    "optimizers",
    "random",
)
_MEMBERS = {
    "FallbackWarning": "errors",
    "GradientTape": "tape",
    "Input": "functional",
    "Model": "models",
    "Sequential": "models",
    "Tensor": "tensor",
    "TensorSpec": "signature",
    "TrainingSession": "runtime",
    "Variable": "variable",
    "custom_gradient": "custom_gradients",
    "grad": "transforms",
    "hessian": "transforms",
    "jacobian": "transforms",
    "jvp": "transforms",
    "recompute": "recomputation",
    "value_and_grad": "transforms",
    "vjp": "transforms",
    "convert_to_tensor": "engine",
    "function": "compiled_function",
    "restore_checkpoint": "state",
    "run_functions_eagerly": "compiled_function",
    "save_checkpoint": "state",
    "set_seed": "random",
    "stop_gradient": "ops",
}

__all__ = [
    "FallbackWarning",
    "GradientTape",
    "Input",
    "Model",
    "Sequential",
    "Tensor",
    "TensorSpec",
    "TrainingSession",
    "Variable",
    "__version__",
    "activations",
    "convert_to_tensor",
    "custom_gradient",
    "data",
    "debugging",
    "errors",
    "function",
    "grad",
    "hessian",
    "initializers",
    "jacobian",
    "jvp",
    "layers",
    "losses",
    "metrics",
    "ops",
    "optimizers",
    "random",
    "recompute",
    "restore_checkpoint",
    "run_functions_eagerly",
    "save_checkpoint",
    "set_seed",
    "stop_gradient",
    "value_and_grad",
    "vjp",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"onnxtape.{name}")
    if name in _MEMBERS:
        member = getattr(importlib.import_module(f"onnxtape.{_MEMBERS[name]}"), name)
        globals()[name] = member
        return member
    raise AttributeError(f"module 'onnxtape' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
