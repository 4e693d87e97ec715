"""Whether this build of ONNX Runtime reads the bits of numbers as other numbers."""

from __future__ import annotations

import functools

from onnxtape.runtime.errors import ExecutionError
from onnxtape.runtime.session import create_session


@functools.cache
def has_bit_cast() -> bool:
    """Whether its CPU provider has BitCast, of opset 26, which onnx has to know too."""
    import onnx
    from onnx import TensorProto, helper

    if not onnx.defs.has("BitCast"):
        return False
    value = helper.make_tensor_value_info
    node = helper.make_node("BitCast", ["x"], ["y"], to=TensorProto.INT32)
    graph = helper.make_graph(
        [node], "bits", [value("x", TensorProto.FLOAT, (1,))], [value("y", TensorProto.INT32, (1,))]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 26)], ir_version=10)
    try:
        create_session(model.SerializeToString(), optimize=False, threads=1)
    except ExecutionError:
        return False
    return True
