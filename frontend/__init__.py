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
        callbacks,
        constraints,
        data,
        debugging,
        errors,
        initializers,
        layers,
        losses,
        metrics,
        mixed_precision,
        models,
        ops,
        optimizers,
        random,
        regularizers,
        saving,
        utils,
    )
    from onnxtape.compiled_function import (
        function,
        run_functions_eagerly,
    )
    from onnxtape.custom_gradients import custom_gradient
    from onnxtape.devices import device, set_default_device
    from onnxtape.drawing import plot_model, plot_step
    from onnxtape.engine import convert_to_tensor
    from onnxtape.errors import FallbackWarning
    from onnxtape.functional import Input
    from onnxtape.initializers import Initializer
    from onnxtape.interop import (
        export_training_info,
        from_keras,
        from_torch,
        load_onnx,
        load_training_info,
    )
    from onnxtape.layers import Layer
    from onnxtape.losses import Loss
    from onnxtape.metrics import Metric
    from onnxtape.mixed_precision import (
        DTypePolicy,
        dtype_policy,
        set_dtype_policy,
        set_mixed_precision,
    )
    from onnxtape.models import Model, Sequential
    from onnxtape.ops import cond, fori_loop, scan, stop_gradient, while_loop
    from onnxtape.optimizers import Optimizer
    from onnxtape.optimizers.clipping import clip_by_global_norm
    from onnxtape.random import set_seed
    from onnxtape.recomputation import recompute
    from onnxtape.regularizers import Regularizer
    from onnxtape.runtime import EvaluationSession, TrainingSession
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
    "callbacks",
    "constraints",
    "data",
    "debugging",
    "errors",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "mixed_precision",
    "models",
    "ops",
    "optimizers",
    "random",
    "regularizers",
    "saving",
    "utils",
)
_MEMBERS = {
    "DTypePolicy": "mixed_precision",
    "EvaluationSession": "runtime",
    "FallbackWarning": "errors",
    "GradientTape": "tape",
    "Initializer": "initializers",
    "Input": "functional",
    "Layer": "layers",
    "Loss": "losses",
    "Metric": "metrics",
    "Model": "models",
    "Optimizer": "optimizers",
    "Regularizer": "regularizers",
    "Sequential": "models",
    "Tensor": "tensor",
    "TensorSpec": "signature",
    "TrainingSession": "runtime",
    "Variable": "variable",
    "custom_gradient": "custom_gradients",
    "device": "devices",
    "dtype_policy": "mixed_precision",
    "export_training_info": "interop",
    "from_keras": "interop",
    "from_torch": "interop",
    "grad": "transforms",
    "hessian": "transforms",
    "jacobian": "transforms",
    "jvp": "transforms",
    "load_onnx": "interop",
    "load_training_info": "interop",
    "plot_model": "drawing",
    "plot_step": "drawing",
    "recompute": "recomputation",
    "value_and_grad": "transforms",
    "vjp": "transforms",
    "clip_by_global_norm": "optimizers.clipping",
    "cond": "ops",
    "convert_to_tensor": "engine",
    "fori_loop": "ops",
    "scan": "ops",
    "while_loop": "ops",
    "function": "compiled_function",
    "restore_checkpoint": "state",
    "run_functions_eagerly": "compiled_function",
    "save_checkpoint": "state",
    "set_default_device": "devices",
    "set_dtype_policy": "mixed_precision",
    "set_mixed_precision": "mixed_precision",
    "set_seed": "random",
    "stop_gradient": "ops",
}

__all__ = [
    "DTypePolicy",
    "EvaluationSession",
    "FallbackWarning",
    "GradientTape",
    "Initializer",
    "Input",
    "Layer",
    "Loss",
    "Metric",
    "Model",
    "Optimizer",
    "Regularizer",
    "Sequential",
    "Tensor",
    "TensorSpec",
    "TrainingSession",
    "Variable",
    "__version__",
    "activations",
    "callbacks",
    "clip_by_global_norm",
    "cond",
    "constraints",
    "convert_to_tensor",
    "custom_gradient",
    "data",
    "debugging",
    "device",
    "dtype_policy",
    "errors",
    "export_training_info",
    "fori_loop",
    "from_keras",
    "from_torch",
    "function",
    "grad",
    "hessian",
    "initializers",
    "jacobian",
    "jvp",
    "layers",
    "load_onnx",
    "load_training_info",
    "losses",
    "metrics",
    "mixed_precision",
    "models",
    "ops",
    "optimizers",
    "plot_model",
    "plot_step",
    "random",
    "recompute",
    "regularizers",
    "restore_checkpoint",
    "run_functions_eagerly",
    "save_checkpoint",
    "saving",
    "scan",
    "set_default_device",
    "set_dtype_policy",
    "set_mixed_precision",
    "set_seed",
    "stop_gradient",
    "utils",
    "value_and_grad",
    "vjp",
    "while_loop",
]


def _load(name: str) -> Any:
    try:
        return importlib.import_module(f"onnxtape.{name}")
    except ModuleNotFoundError as error:
        from onnxtape.requirements import missing_sentence

        sentence = missing_sentence(error)
        if sentence is None:
            raise
        raise ModuleNotFoundError(sentence, name=error.name) from error


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return _load(name)
    if name in _MEMBERS:
        member = getattr(_load(_MEMBERS[name]), name)
        globals()[name] = member
        return member
    from onnxtape.missing import no_attribute

    raise no_attribute("onnxtape", name, __all__, _MODULES)


def __dir__() -> list[str]:
    return sorted(__all__)
