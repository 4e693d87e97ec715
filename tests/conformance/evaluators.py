"""What runs the tests' models: ONNX's reference evaluator and ONNX Runtime."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

from tests.compiler.graphs import Array
from tests.compiler.reference_ops import CORRECTED

#: Inputs by name in, outputs by name out.
Function = Callable[[Mapping[str, Array]], dict[str, Array]]


def reference(model: onnx.ModelProto) -> Function:
    """The model in ONNX's reference evaluator, with the operators that it has wrong put right."""
    named = onnx.ModelProto()
    named.CopyFrom(model)
    # The evaluator keeps an omitted output as the value "" and gives it to nodes whose optional
    # input is omitted.
    for i, node in enumerate(named.graph.node):
        node.output[:] = [name or f"omitted {i}.{k}" for k, name in enumerate(node.output)]
    evaluator = ReferenceEvaluator(named, new_ops=CORRECTED)
    names = [v.name for v in model.graph.output]

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        # NumPy warns of 0/0 and overflow, which some tests are about.
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outputs = evaluator.run(names, dict(feeds))
        return {k: np.asarray(v) for k, v in zip(names, outputs, strict=True)}

    return run


def onnx_runtime(model: onnx.ModelProto) -> Function:
    """The model in ONNX Runtime, on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [v.name for v in model.graph.output]

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        outputs = session.run(names, dict(feeds))
        return {k: np.asarray(v) for k, v in zip(names, outputs, strict=True)}

    return run


EVALUATORS: dict[str, Callable[[onnx.ModelProto], Function]] = {
    "reference": reference,
    "onnxruntime": onnx_runtime,
}
