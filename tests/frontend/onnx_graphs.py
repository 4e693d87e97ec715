"""Small ONNX models for the tests of what reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

import onnxtape as ot

RNG = np.random.default_rng(0)
W1, B1 = RNG.normal(size=(4, 8)).astype("f"), RNG.normal(size=8).astype("f")
W2 = RNG.normal(size=(8, 3)).astype("f")
X = RNG.normal(size=(5, 4)).astype("f")


def tensors(**arrays: Any) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()]


def model_of(
    nodes: list[onnx.NodeProto],
    initializers: list[onnx.TensorProto],
    outputs: tuple[str, ...] = ("logits",),
    opset: int = 17,
    **more: Any,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs],
        initializers,
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
        producer_name="somebody",
        **more,
    )


def mlp(**more: Any) -> onnx.ModelProto:
    return model_of(
        [
            helper.make_node("Gemm", ["x", "fc1.weight", "fc1.bias"], ["h"], "first"),
            helper.make_node("Relu", ["h"], ["a"], "relu"),
            helper.make_node("MatMul", ["a", "fc2.weight"], ["logits"], "second"),
        ],
        tensors(**{"fc1.weight": W1, "fc1.bias": B1, "fc2.weight": W2}),
        **more,
    )


def run(model: Any, *names: str, **feeds: Any) -> list[Any]:
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    return list(ort.InferenceSession(source).run(list(names) or None, feeds))


def saved(path: Path, proto: onnx.ModelProto) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def with_gradients(model: Any) -> Callable[[Any], Any]:
    """A function of x that gives the model's result, and the gradients of its sum."""

    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            y = model(x)
        return y, tape.gradient(y, model.trainable_variables)

    return step
