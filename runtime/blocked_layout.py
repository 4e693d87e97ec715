"""What this build of ONNX Runtime offers of its blocked layout on this processor."""

from __future__ import annotations

import functools

import numpy as np

from onnxtape.runtime.errors import ExecutionError
from onnxtape.runtime.session import create_session
from onnxtape.runtime.values import from_numpy, to_numpy

_LARGEST = 32


@functools.cache
def block_size() -> int:
    """How many channels ONNX Runtime's CPU kernels lay side by side; 0 where it has no such layout.

    16 with AVX-512, 8 with AVX. No documented call tells: a reordered image does.
    """
    from onnx import TensorProto, helper

    domain = "com.microsoft.nchwc"
    images = [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, _LARGEST, 1, 2))]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    node = helper.make_node("ReorderInput", ["x"], ["y"], domain=domain)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(domain, 1)]
    graph = helper.make_graph([node], "reorder", images, made)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    # Channel c holds the numbers 2 c and 2 c + 1.
    image = np.arange(2 * _LARGEST, dtype=np.float32).reshape(1, _LARGEST, 1, 2)
    try:
        session = create_session(model.SerializeToString(), optimize=False, threads=1)
        result = session._sess.run_with_ort_values({"x": from_numpy(image)}, ["y"], None)[0]
    except ExecutionError:
        return 0  # a build, or a processor, without it
    order = to_numpy(result).ravel()
    # The second number of channel 0 comes after the first numbers of all channels of the block.
    block = int(np.flatnonzero(order == 1)[0])
    return block if block in (8, 16) else 0
