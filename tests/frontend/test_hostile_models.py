"""ONNX files that cannot be trusted: nothing is read outside their folder, nothing blows up."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxtape as ot
from onnxtape.errors import ModelError
from onnxtape.interop import limits
from onnxtape.runtime.errors import ExecutionError
from tests.frontend.onnx_graphs import W1, mlp, model_of, saved, tensors

node = helper.make_node


def external(location: str, **entries: Any) -> onnx.ModelProto:
    proto = mlp()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return proto


@pytest.mark.parametrize(
    "location",
    ["../secret", "a/../../secret", "/etc/passwd", "C:\\secret", "..\\secret", "", "link/secret"],
)
def test_weights_outside_the_folder_are_not_read(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(W1.tobytes())
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    path = saved(folder / "net.onnx", external(location))
    with pytest.raises(ModelError, match=r"initializer 'fc1.weight'.*(outside its folder|a link)"):
        ot.load_onnx(path)


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ({}, "of shape .4, 8., which takes 128 bytes, but holds 200"),
        ({"offset": 100, "length": 128}, "lies at bytes 100 to 228 of 'data', which has 200"),
        ({"offset": -4, "length": 128}, "lies at bytes -4"),
        ({"offset": "much"}, "has no sensible place for initializer 'fc1.weight'"),
    ],
)
def test_external_data_that_lies(tmp_path: Path, entries: Any, text: str) -> None:
    (tmp_path / "data").write_bytes(bytes(200))
    with pytest.raises(ModelError, match=text):
        ot.load_onnx(saved(tmp_path / "net.onnx", external("data", **entries)))


def test_external_data_that_is_missing_or_out_of_reach(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="keeps initializer 'fc1"):
        ot.load_onnx(saved(tmp_path / "net.onnx", external("gone")))
    with pytest.raises(ModelError, match="give load_onnx the path of the model"):
        ot.load_onnx(external("gone"))


def test_a_shape_that_claims_more_than_there_is() -> None:
    proto = mlp()
    proto.graph.initializer[0].dims[0] = 2**40
    with pytest.raises(
        ModelError, match=r"of shape \(1099511627776, 8\), which takes 351843720888"
    ):
        ot.load_onnx(proto)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"not onnx at all", "is not an ONNX model"),
        (b"", "is not an ONNX model: it holds no graph"),
        (mlp().SerializeToString()[:-50], "is not an ONNX model, or it has been cut off"),
        (mlp(opset=27).SerializeToString(), "is of opset 27; ONNX Runtime loads up to 26"),
    ],
)
def test_files_that_are_no_models(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=text):
        ot.load_onnx(path)


def test_a_model_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxtape.interop import reading

    path = saved(tmp_path / "net.onnx", mlp())
    monkeypatch.setattr(reading, "LARGEST_MODEL", 100)
    with pytest.raises(ModelError, match=r"'net.onnx' is larger than 100 bytes, its weights incl"):
        ot.load_onnx(path)
    (tmp_path / "data").write_bytes(W1.tobytes())
    monkeypatch.setattr(reading, "LARGEST_MODEL", external("data").ByteSize() + 100)
    with pytest.raises(ModelError, match="is larger than"):
        ot.load_onnx(saved(tmp_path / "net.onnx", external("data")))


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read the ONNX model '.*gone.onnx': there is no"):
        ot.load_onnx(tmp_path / "gone.onnx")
    with pytest.raises(ModelError, match="it is a folder"):
        ot.load_onnx(tmp_path)


@pytest.mark.parametrize("opset", [17, 21])
def test_graphs_that_are_broken(opset: int) -> None:
    unknown = model_of([helper.make_node("Frobnicate", ["x"], ["logits"])], [], opset=opset)
    with pytest.raises(ModelError, match=r"the operator Frobnicate .*which ONNX does not have"):
        ot.load_onnx(unknown)
    dangling = model_of([helper.make_node("Relu", ["nowhere"], ["logits"], "r")], [], opset=opset)
    with pytest.raises(ModelError, match=r"node 'r' \(Relu\) reads 'nowhere', which nothing has"):
        ot.load_onnx(dangling)


def test_training_information_is_read_as_carefully(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(128))
    proto = mlp()
    algorithm = proto.training_info.add().algorithm
    algorithm.initializer.extend(external("../secret").graph.initializer[:1])
    (tmp_path / "models").mkdir()
    path = saved(tmp_path / "models" / "net.onnx", proto)
    for read in (ot.load_onnx, ot.load_training_info):
        with pytest.raises(ModelError, match="outside its folder; that is not allowed"):
            read(path)


# Few bytes that stand for many --------------------------------------------------------------------

HUGE = 1 << 40


@pytest.mark.parametrize(
    ("nodes", "constants", "title"),
    [
        ([node("ConstantOfShape", ["s"], ["c"])], {"s": np.int64([HUGE, 3])}, "ConstantOfShape"),
        ([node("Expand", ["k", "s"], ["c"])], {"s": np.int64([1 << 20, 1 << 20])}, "Expand"),
        ([node("Tile", ["k", "s"], ["c"])], {"s": np.int64([HUGE])}, "Tile"),
        ([node("Pad", ["k", "s"], ["c"])], {"s": np.int64([0, HUGE])}, "Pad"),
        ([node("Range", ["z", "s", "o"], ["c"])], {"s": np.int64(HUGE)}, "Range"),
        ([node("MatMul", ["s", "t"], ["c"])],
         {"s": np.zeros((HUGE >> 20, 1), "i8"), "t": np.zeros((1, HUGE >> 20), "i8")}, "MatMul"),
        ([node("Concat", [f"c{i}" if i else "k"] * 2, [f"c{i + 1}"], axis=0) for i in range(40)],
         {}, "Concat"),
    ],
)  # fmt: skip
def test_constants_that_the_model_would_make(
    nodes: list[onnx.NodeProto], constants: dict[str, Any], title: str
) -> None:
    last = nodes[-1].output[0]
    common = {"k": np.int64([1]), "z": np.int64(0), "o": np.int64(1)}
    proto = model_of(
        [
            *nodes,
            node("Size", [last], ["size"]),
            node("CastLike", ["size", "x"], ["number"]),
            node("Add", ["x", "number"], ["logits"]),
        ],
        tensors(**common, **constants),
    )
    with pytest.raises(ModelError, match=f"more than 2147483647 bytes.*{title} .* makes [0-9]+$"):
        ot.load_onnx(proto)


def test_weights_that_the_model_would_fill() -> None:
    for shape, message in (([HUGE, 4], "more than 2147483647 bytes"), ([-4, 4], "of shape")):
        nodes = [node("ConstantOfShape", ["s"], ["w"]), node("Gemm", ["x", "w"], ["logits"])]
        with pytest.raises(ModelError, match=message):
            ot.load_onnx(model_of(nodes, tensors(s=np.int64(shape))))


def functions(*calls: list[str]) -> onnx.ModelProto:
    """Functions F0, F1, ...; each applies those that are named one after the other."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    made = []
    for i, names in enumerate(calls):
        values = [f"v{k}" for k in range(len(names) + 1)]
        nodes = [
            node(name, [values[k]], [values[k + 1]], domain="own" if name[0] == "F" else "")
            for k, name in enumerate(names)
        ]
        made.append(helper.make_function("own", f"F{i}", [values[0]], [values[-1]], nodes, opsets))
    proto = model_of([node("F0", ["x"], ["logits"], domain="own")], [], functions=made)
    proto.opset_import.append(helper.make_opsetid("own", 1))
    return proto


def test_functions_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    doubling = [[f"F{i + 1}"] * 2 for i in range(40)]
    with pytest.raises(ModelError, match=f"stand for {1 << 40} nodes; 1000000 are allowed"):
        ot.load_onnx(functions(*doubling, ["Neg"]))
    with pytest.raises(ModelError, match="its function F0 calls itself"):
        ot.load_onnx(functions(["F1"], ["Neg", "F0"]))
    few = functions(["F1", "F1"], ["Neg", "Abs"])
    np.testing.assert_array_equal(ot.load_onnx(few)(W1), np.abs(W1))
    monkeypatch.setattr(limits, "MOST_NODES", 3)
    with pytest.raises(ModelError, match="stand for 4 nodes; 3 are allowed"):
        ot.load_onnx(few)


def test_subgraphs_deeper_than_any_reader_goes() -> None:
    """Whoever writes such a file writes bytes: protobuf's own classes refuse to."""

    def field(number: int, content: bytes) -> bytes:
        length, left = b"", len(content)
        while left > 127:
            length += bytes([left % 128 + 128])
            left //= 128
        return bytes([number << 3 | 2]) + length + bytes([left]) + content

    graph = b""
    for _ in range(200):  # GraphProto.node 1, NodeProto.attribute 5, AttributeProto.g 6
        graph = field(1, field(5, field(6, graph)))
    with pytest.raises(ModelError, match="is not an ONNX model, or it has been cut off"):
        ot.load_onnx(mlp().SerializeToString() + field(7, graph))


@pytest.mark.parametrize("numbers", [0, 1])
def test_a_shape_without_its_numbers(numbers: int) -> None:
    proto = mlp()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1.0] * numbers)
    tensor.dims[:] = [HUGE, 8]
    with pytest.raises(ModelError, match=f"takes {HUGE * 8} numbers, but holds {numbers}"):
        ot.load_onnx(proto)


def test_sparse_initializers_are_refused() -> None:
    proto = mlp()
    values, places = tensors(s=np.float32([1]), i=np.int64([0]))
    sparse = helper.make_sparse_tensor(values, places, [1 << 30, 1 << 30])
    proto.graph.sparse_initializer.append(sparse)
    with pytest.raises(ModelError, match="holds sparse initializers, which are not supported"):
        ot.load_onnx(proto)


# Artifacts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("absolute", [False, True])
def test_an_artifact_reads_nothing_outside_its_folder(tmp_path: Path, absolute: bool) -> None:
    """ONNX Runtime sees to it, as long as it knows where the folder is."""
    total = ot.Variable(np.float32(0), name="total")

    @ot.function
    def step(x: Any) -> Any:
        total.assign_add(ot.ops.sum(x))
        return {"loss": total.value * 1.0}

    folder, secret = tmp_path / "artifact", tmp_path / "secret"
    step.export(folder, ot.TensorSpec((None,), "float32"))
    secret.write_bytes(np.float32([7]).tobytes())
    model = onnx.load(folder / "training.onnx")
    location = str(secret) if absolute else "../secret"
    (leak,) = external(location, length=4).graph.initializer[:1]
    leak.name, leak.dims[:] = "leak", []
    model.graph.initializer.append(leak)
    for made in model.graph.node:
        made.output[:] = ["before" if name == "loss" else name for name in made.output]
    model.graph.node.append(node("Add", ["before", "leak"], ["loss"]))
    content = model.SerializeToString()
    (folder / "training.onnx").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    manifest["files"]["training.onnx"] = entry
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ExecutionError, match="External data path validation failed"):
        ot.TrainingSession(folder)
