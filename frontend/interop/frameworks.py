"""Models from other frameworks, by way of the frameworks' own ONNX exporters."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxtape.errors import ModelError
from onnxtape.interop.model import OnnxModel, Selection
from onnxtape.interop.preparing import LAST_OPSET, OPSET
from onnxtape.interop.reading import read_model


class TorchModel(OnnxModel):
    """What `from_torch` gives: an `OnnxModel` that knows the module it came from."""

    _module: Any

    def to_torch_state_dict(self) -> dict[str, Any]:
        """The trained weights as `module.load_state_dict` takes them.

        Returns:
            All entries of the module's state dict, as tensors of their own, in its names, shapes
            and dtypes. What the exported graph does not use is as it is in the module.
        """
        import torch

        trained = self.trained_weights()
        state = self._module.state_dict(keep_vars=True)
        # Several names may stand for one tensor, of which the exporter keeps one.
        by_storage = {
            _identity(tensor): trained[name] for name, tensor in state.items() if name in trained
        }
        found: dict[str, Any] = {}
        for name, tensor in state.items():
            array = trained.get(name, by_storage.get(_identity(tensor)))
            if array is None:
                found[name] = tensor.detach().clone()
            else:
                found[name] = torch.from_numpy(np.array(array)).to(tensor.dtype)
        return found


def _identity(tensor: Any) -> tuple[Any, ...]:
    return tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype


def from_torch(
    module: Any,
    example_inputs: Any,
    *,
    trainable: Selection | None = None,
    dynamic_shapes: Any = "batch",
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset: int = OPSET,
) -> TorchModel:
    """A `torch.nn.Module` as a model that is trained here.

    The module is exported by `torch.onnx.export` (which needs the package onnxscript), as it
    behaves in evaluation; its parameters keep their names and shapes. With `training=True`, batch
    normalization and dropout that the graph still holds are trained.

    Args:
        module: it is left as it is.
        example_inputs: a tensor, or a tuple of the module's positional arguments.
        trainable: as for `load_onnx`; by default all parameters.
        dynamic_shapes: as for `torch.onnx.export`; "batch" leaves the first dimension of every
            input open, None leaves none open.
        input_names, output_names: names in the graph.
        opset: of the graph, 21 to 26.

    Raises:
        ImportError: torch or onnxscript is not installed.
        ModelError: PyTorch cannot export the module, or the graph cannot be trained here.
    """
    try:
        import onnxscript  # noqa: F401
        import torch
    except ImportError as error:
        raise ImportError(
            f"from_torch needs PyTorch and its exporter's package: pip install torch onnxscript "
            f"({error})"
        ) from error
    if not OPSET <= opset <= LAST_OPSET:
        raise ValueError(f"opset must be {OPSET} to {LAST_OPSET}, not {opset}")
    args = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    if dynamic_shapes == "batch":
        dynamic_shapes = tuple(_open_batch(torch, arg) for arg in args)
    was_training = module.training
    module.eval()
    try:
        with tempfile.TemporaryDirectory(prefix="onnxtape-") as folder:
            path = Path(folder) / "module.onnx"
            # Not optimized: that folds parameters into others, under names of its own.
            torch.onnx.export(
                module, args, path, dynamo=True, optimize=False, verbose=False,
                external_data=False, opset_version=opset, dynamic_shapes=dynamic_shapes,
                input_names=input_names, output_names=output_names,
            )  # fmt: skip
            read = read_model(path)
    except ModelError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise ModelError(
            f"PyTorch cannot export {type(module).__name__} to ONNX: "
            f"{reason[0] if reason else type(error).__name__}. torch.onnx.export("
            "module, example_inputs, dynamo=True) shows the whole report"
        ) from error
    finally:
        module.train(was_training)
    model = TorchModel(read, name=type(module).__name__)
    model._module = module
    if trainable is not None:
        model.set_trainable(trainable)
    return model


def _open_batch(torch: Any, arg: Any) -> Any:
    if isinstance(arg, torch.Tensor):
        return {0: torch.export.Dim.AUTO} if arg.ndim else {}
    if isinstance(arg, (list, tuple)):
        return type(arg)(_open_batch(torch, part) for part in arg)
    if isinstance(arg, Mapping):
        return {key: _open_batch(torch, part) for key, part in arg.items()}
    return None
