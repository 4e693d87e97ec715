"""Weights put into a serialized model without the onnx package, checked with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxtape.runtime import weights as weights_module
from onnxtape.runtime.dtypes import DTYPES, numpy_dtype
from onnxtape.runtime.errors import ArtifactError
from onnxtape.runtime.weights import graph_names, with_weights


def test_names(regression: Any) -> None:
    names = graph_names(regression.inference_model())
    assert names.inputs == ["kernel", "x", "bias"]
    assert names.outputs == ["prediction"]


def test_the_rest_of_the_model_stays_as_it_was(regression: Any) -> None:
    before = onnx.load_from_string(regression.inference_model())
    before.graph.doc_string = "ö" * 200
    before.graph.value_info.append(helper.make_tensor_value_info("v", 1, ["n", 3]))
    before.graph.initializer.append(numpy_helper.from_array(np.ones(3), "old"))
    before.metadata_props.add(key="author", value="me")
    kernel = np.arange(4, dtype=np.float32).reshape(4, 1)
    after = onnx.load_from_string(
        b"".join(with_weights(before.SerializeToString(), {"kernel": kernel}))
    )
    (added,) = [tensor for tensor in after.graph.initializer if tensor.name == "kernel"]
    np.testing.assert_array_equal(numpy_helper.to_array(added), kernel)
    assert [value.name for value in after.graph.input] == ["x", "bias"]
    # Undo the two changes by hand; then nothing may differ.
    after.graph.initializer.remove(added)
    after.graph.input.insert(0, before.graph.input[0])
    assert after == before


def test_a_graph_in_two_parts_is_merged(regression: Any) -> None:
    extra = onnx.ModelProto()
    extra.graph.input.append(helper.make_tensor_value_info("late", TensorProto.FLOAT, [1]))
    model = regression.inference_model() + extra.SerializeToString()
    assert graph_names(model).inputs == ["kernel", "x", "bias", "late"]
    merged = onnx.load_from_string(b"".join(with_weights(model, {"late": np.ones(1, np.float32)})))
    assert [value.name for value in merged.graph.input] == ["kernel", "x", "bias"]
    assert [node.op_type for node in merged.graph.node] == ["Gemm"]
    assert merged.graph.initializer[0].name == "late"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3), (), (0,)])
def test_every_dtype(
    model_builder: Callable[..., bytes], dtype: str, shape: tuple[int, ...]
) -> None:
    number = DTYPES[dtype].onnx
    node = helper.make_node("Identity", ["w"], ["y"])
    model = model_builder([node], [("w", number, list(shape))], [("y", number, list(shape))])
    array = np.resize(np.array([0, 1, 3]), shape).astype(numpy_dtype(dtype))
    filled = b"".join(with_weights(model, {"w": array}))
    loaded = onnx.load_from_string(filled)
    onnx.checker.check_model(loaded, full_check=True)
    tensor = numpy_helper.to_array(loaded.graph.initializer[0])
    assert tensor.dtype == array.dtype
    np.testing.assert_array_equal(tensor, array)
    session = onnxruntime.InferenceSession(filled, providers=["CPUExecutionProvider"])
    assert session.get_inputs() == []
    if dtype != "bfloat16":  # which ONNX Runtime cannot give to NumPy
        np.testing.assert_array_equal(session.run(None, {})[0], array)


def test_memory_layout_does_not_matter(regression: Any) -> None:
    kernel = np.arange(8, dtype=np.float32).reshape(4, 2)[:, 1:].astype(">f4")
    model = onnx.load_from_string(
        b"".join(with_weights(regression.inference_model(), {"kernel": kernel}))
    )
    tensor = numpy_helper.to_array(model.graph.initializer[0])
    np.testing.assert_array_equal(tensor, [[1], [3], [5], [7]])


def test_too_large(regression: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "LARGEST_MODEL", 200)
    with pytest.raises(ArtifactError, match=r"must stay below 2 GiB\. Save the state instead"):
        with_weights(regression.inference_model(), {"bias": np.ones(100, np.float32)})


def test_damaged_models(regression: Any) -> None:
    model = regression.inference_model()
    assert graph_names(model).outputs
    for damaged in (
        b"",
        b"\x08\x0a",  # no graph
        model[:-1],
        b"\x3a\x0d" + model,  # the graph ends inside a field
        b"\xff" * 30,  # a number that does not end
        b"\x3b\x00",  # a group, which ONNX has none of
        b"\x02\x00",  # field 0
    ):
        with pytest.raises(ArtifactError, match="This is not a serialized ONNX model"):
            graph_names(damaged)


def test_random_bytes_never_escape_as_another_error(regression: Any) -> None:
    model = bytearray(regression.inference_model())
    random = np.random.default_rng(3)
    refused = 0
    for _ in range(500):
        changed = bytearray(model)
        for position in random.integers(0, len(model), 3):
            changed[position] = random.integers(0, 256)
        try:
            with_weights(bytes(changed), {"kernel": np.ones((4, 1), np.float32)})
        except ArtifactError:
            refused += 1
    assert refused > 50
