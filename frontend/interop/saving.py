"""Writing a trained model back as the ONNX file that it was."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxtape.errors import ModelError
from onnxtape.interop.inner_tensors import all_tensors
from onnxtape.runtime.files import replacing
from onnxtape.runtime.weights import LARGEST_MODEL

if TYPE_CHECKING:
    import onnx

#: Smaller tensors stay in the model where the larger ones lie in a file of their own.
_SMALL = 1024


def with_weights(
    original: onnx.ModelProto, weights: Mapping[str, npt.NDArray[Any]]
) -> onnx.ModelProto:
    """A copy of the model in which these initializers and constants have other values.

    Everything else stays: names, order, metadata, opset.

    Raises:
        ModelError: the model holds no such initializer.
    """
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(original)
    missing = dict(weights)
    for name, tensor in named_tensors(model):
        array = missing.pop(name, None)
        if array is None:
            continue
        before = onnx.numpy_helper.to_array(tensor)
        if not np.array_equal(before, array, equal_nan=True):
            fresh = onnx.numpy_helper.from_array(array.astype(before.dtype), tensor.name)
            for part in ("float_data", "double_data", "int32_data"):
                tensor.ClearField(part)
            tensor.raw_data = fresh.raw_data
    for node in list(model.graph.node):
        if node.op_type == "ConstantOfShape" and node.output[0] in missing:
            _replace_fill(model, node, missing.pop(node.output[0]))
    if missing:
        raise ModelError(
            f"'{next(iter(missing))}' was made when the model was brought up to a newer opset, and "
            "has no place in the original file; leave it out of what is trained"
        )
    return model


def _replace_fill(model: onnx.ModelProto, node: onnx.NodeProto, array: npt.NDArray[Any]) -> None:
    """Put an initializer in the place of a ConstantOfShape, unless it still says the same."""
    import onnx

    fill = [onnx.numpy_helper.to_array(a.t).item() for a in node.attribute] or [0.0]
    if np.all(array == np.asarray(fill[0], array.dtype)):
        return
    tensor = onnx.numpy_helper.from_array(array, node.output[0])
    if model.ir_version < 4:  # Initializers are inputs too.
        model.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    model.graph.initializer.append(tensor)
    model.graph.node.remove(node)


def named_tensors(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """The initializers and Constants of the model, under the names that its weights have."""
    yield from all_tensors(model.graph)


def write_model(
    path: str | os.PathLike[str], model: onnx.ModelProto, external: Collection[str]
) -> Path:
    """Write the model; what lay in other files goes into one beside it, `<name>.data`.

    A reader never sees half of a file.

    Args:
        external: the initializers that are to lie outside the model.
    """
    target = Path(path)
    outside = set(external)
    if model.ByteSize() > LARGEST_MODEL:
        outside.update(t.name for t in model.graph.initializer)
    if outside:
        location = f"{target.name}.data"
        with replacing(target.with_name(location)) as temporary, temporary.open("wb") as file:
            for tensor in model.graph.initializer:
                if tensor.name in outside and len(tensor.raw_data) >= _SMALL:
                    _put_outside(tensor, location, file)
    with replacing(target) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return target


def _put_outside(tensor: onnx.TensorProto, location: str, file: Any) -> None:
    import onnx

    data = tensor.raw_data
    # Aligned, so that the file can be mapped into memory.
    file.write(b"\0" * (-file.tell() % 4096))
    entries = {"location": location, "offset": file.tell(), "length": len(data)}
    file.write(data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
