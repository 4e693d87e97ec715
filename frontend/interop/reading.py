"""Reading ONNX models that somebody else has made, without trusting them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from onnxtape.errors import ModelError
from onnxtape.interop.preparing import prepared
from onnxtape.interop.untrained import bring_back
from onnxtape.runtime.weights import LARGEST_MODEL

if TYPE_CHECKING:
    import onnx


# Where a tensor without raw data has its numbers.
_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


class SourceModel(NamedTuple):
    """A model as it was read.

    Attributes:
        name: of the file, for messages; "model" for a proto.
        original: as it is in the file, with its weights; but see `untrained`.
        prepared: in the form that is run and differentiated; see `preparing`.
        external: the names of the initializers that lie in files of their own.
    """

    name: str
    original: onnx.ModelProto
    prepared: onnx.ModelProto
    external: dict[str, str]


def read_model(source: str | os.PathLike[str] | bytes | onnx.ModelProto) -> SourceModel:
    """Read an ONNX model.

    Args:
        source: a path, a serialized model, or a ModelProto.

    Raises:
        ModelError: the file is missing, truncated, or no ONNX model; its weights lie outside its
            folder, or are not as long as they claim; it is larger than 2 GB; or no rule brings its
            opset up.
    """
    name, original, external = read_proto(source)
    bring_back(original)
    return SourceModel(name, original, prepared(name, original), external)


def read_proto(
    source: str | os.PathLike[str] | bytes | onnx.ModelProto,
) -> tuple[str, onnx.ModelProto, dict[str, str]]:
    """The name, the model with all its tensors' data, and what `SourceModel.external` is.

    Raises:
        ModelError: as `read_model`, but for the opset.
    """
    import onnx

    external: dict[str, str] = {}
    if isinstance(source, onnx.ModelProto):
        name, folder = "model", None
        original = onnx.ModelProto()
        original.CopyFrom(source)
    else:
        name, folder, data = _content(source)
        original = _parsed(name, data)
    if original.graph.sparse_initializer:
        raise ModelError(f"'{name}' holds sparse initializers, which are not supported")
    total = original.ByteSize()
    for owner, tensor in _tensors(original):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            external[tensor.name] = _read_external(name, folder, owner, tensor)
            total += len(tensor.raw_data)
            _check_total(name, total)
        _check_size(name, owner, tensor)
    return name, original, external


def _content(source: str | os.PathLike[str] | bytes) -> tuple[str, Path | None, bytes]:
    if isinstance(source, bytes):
        return "model", None, source
    path = Path(source)
    if not path.is_file():
        reason = "it is a folder" if path.is_dir() else "there is no such file"
        raise ModelError(f"cannot read the ONNX model '{path}': {reason}")
    _check_total(path.name, path.stat().st_size)
    return path.name, path.parent, path.read_bytes()


def _check_total(name: str, size: int) -> None:
    if size > LARGEST_MODEL:
        raise ModelError(
            f"'{name}' is larger than {LARGEST_MODEL} bytes, its weights included: more than "
            "ONNX's tools convert. Export it in parts, or with weights of half precision"
        )


def _parsed(name: str, data: bytes) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise ModelError(f"'{name}' is not an ONNX model, or it has been cut off") from None
    if not model.ir_version or not model.HasField("graph") or not model.opset_import:
        raise ModelError(f"'{name}' is not an ONNX model: it holds no graph")
    return model


def _tensors(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """All tensors of the model, each with what to call it."""
    yield from _tensors_of(model.graph)
    for info in model.training_info:
        yield from _tensors_of(info.initialization)
        yield from _tensors_of(info.algorithm)
    for function in model.functions:
        yield from _tensors_of_nodes(function.node)


def _tensors_of(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in graph.initializer:
        yield f"initializer '{tensor.name}'", tensor
    for sparse in graph.sparse_initializer:
        yield f"sparse initializer '{sparse.values.name}'", sparse.values
    yield from _tensors_of_nodes(graph.node)


def _tensors_of_nodes(nodes: Any) -> Iterator[tuple[str, onnx.TensorProto]]:
    for node in nodes:
        for attribute in node.attribute:
            title = f"attribute '{attribute.name}' of node '{node.name or node.op_type}'"
            if attribute.HasField("t"):
                yield title, attribute.t
            for tensor in attribute.tensors:
                yield title, tensor
            if attribute.HasField("g"):
                yield from _tensors_of(attribute.g)
            for graph in attribute.graphs:
                yield from _tensors_of(graph)


def _read_external(name: str, folder: Path | None, owner: str, tensor: onnx.TensorProto) -> str:
    """Bring a tensor's data in from its file; returns the file's name.

    The file must be an ordinary one in the model's folder or below: a model from a stranger must
    not make us read anything else.
    """
    import onnx

    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = str(entries.get("location", ""))
    if folder is None:
        raise ModelError(
            f"{owner} of the model lies in another file, '{location}'; give load_onnx the path of "
            "the model, or load the weights with onnx.load first"
        )
    relative = Path(location.replace("\\", "/"))
    path = folder / relative
    if not location or relative.is_absolute() or ".." in relative.parts or ":" in location:
        raise ModelError(
            f"'{name}' keeps {owner} in '{location}', outside its folder; that is not allowed"
        )
    within = [path, *[p for p in path.parents if p != folder and folder in p.parents]]
    if any(p.is_symlink() for p in within):
        raise ModelError(f"'{name}' keeps {owner} behind a link, '{location}'; not allowed")
    if not path.is_file():
        raise ModelError(f"'{name}' keeps {owner} in '{location}', which is missing")
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries["length"]) if "length" in entries else None
    except ValueError:
        raise ModelError(f"'{name}' has no sensible place for {owner} in '{location}'") from None
    size = path.stat().st_size
    end = size if length is None else offset + length
    if offset < 0 or not offset <= end <= size:
        raise ModelError(
            f"'{name}' says that {owner} lies at bytes {offset} to {end} of '{location}', which "
            f"has {size}"
        )
    with path.open("rb") as file:
        file.seek(offset)
        tensor.raw_data = file.read(end - offset)
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.DEFAULT
    return location


def _check_size(name: str, owner: str, tensor: onnx.TensorProto) -> None:
    """Whether there is as much data as the shape claims, before memory is reserved for it."""
    import onnx

    if any(d < 0 for d in tensor.dims):
        raise ModelError(f"'{name}' has {owner} of shape {tuple(tensor.dims)}")
    try:
        item = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, TypeError):
        raise ModelError(f"'{name}' has {owner} of an unknown type {tensor.data_type}") from None
    kinds = onnx.TensorProto
    numbers = math.prod(tensor.dims)
    halves, quarters = (kinds.INT4, kinds.UINT4, kinds.FLOAT4E2M1), (kinds.INT2, kinds.UINT2)
    packed = 2 if tensor.data_type in halves else 4 if tensor.data_type in quarters else 1
    wanted = -(-numbers // packed)
    if tensor.HasField("raw_data"):
        wanted, found, unit = wanted * item, len(tensor.raw_data), "bytes"
    else:
        pairs = tensor.data_type in (kinds.COMPLEX64, kinds.COMPLEX128)
        wanted, unit = wanted * (2 if pairs else 1), "numbers"
        found = sum(len(getattr(tensor, field)) for field in _FIELDS)
    if found != wanted:
        raise ModelError(
            f"'{name}' has {owner} of shape {tuple(tensor.dims)}, which takes {wanted} {unit}, but "
            f"holds {found}"
        )
