"""What load_onnx makes of the notes that torch.onnx.export leaves in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxtape as ot
from tests.frontend.onnx_graphs import B1, W1, X, model_of, tensors, with_gradients


def test_what_the_exporter_notes_decides(tmp_path: Path) -> None:
    """The notes of torch.onnx.export: buffers, and parameters that were folded into others."""
    proto = model_of(
        [
            helper.make_node("MatMul", ["x", "val_1"], ["h"]),
            helper.make_node("Mul", ["h", "inv_freq"], ["m"]),
            helper.make_node("Add", ["m", "fc.bias"], ["b"]),
            helper.make_node("Add", ["b", "zeros_like_1"], ["logits"]),
        ],
        tensors(val_1=W1, inv_freq=B1, zeros_like_1=B1 * 0, **{"fc.bias": B1 * 2}),
    )
    notes = {
        "inv_freq": {"pkg.torch.export.graph_signature.InputSpec.kind": "BUFFER"},
        "fc.bias": {"pkg.torch.export.graph_signature.InputSpec.kind": "PARAMETER"},
        "val_1": {"pkg.onnxscript.optimizer.folded_from": "['fc.weight']"},
        # Of its shape alone, as the queries of DETR's decoders begin.
        "zeros_like_1": {"pkg.onnxscript.optimizer.folded_from": "['fc.weight']"},
    }
    for name, props in notes.items():
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for key, value in props.items():
            info.metadata_props.add(key=key, value=value)
        proto.graph.value_info.append(info)
    proto.graph.metadata_props.add(
        key="pkg.torch.export.ExportedProgram.graph_signature",
        value="p_w: PARAMETER target='fc.weight'\np_b: PARAMETER target='fc.bias'\n",
    )
    model = ot.load_onnx(proto)
    assert [v.path for v in model.trainable_variables] == ["val_1", "fc.bias"]
    model.set_trainable("fc.weight")
    assert [v.path for v in model.trainable_variables] == ["val_1"]


@pytest.mark.parametrize("folded", [False, True])
def test_where_the_exporter_notes_nothing_names_and_uses_decide(folded: bool) -> None:
    """torch.onnx.export (dynamo) at opset 17 keeps no notes on what was a parameter."""
    frequencies = "rope.inv_freq" if folded else "rope.sliding_attention_inv_freq"  # ModernBERT's.
    proto = model_of(
        [
            helper.make_node("Mul", ["x", "exp"], ["m"], "node_mul"),
            helper.make_node("MatMul", ["m", "val_7"], ["h"], "node_matmul"),
            helper.make_node("Mul", ["h", frequencies], ["r"], "node_mul_1"),
            helper.make_node("Add", ["r", "val_9"], ["s"], "node_add"),
            helper.make_node("Add", ["s", "fc.bias"], ["t"], "node_add_1"),
            helper.make_node("Add", ["t", "m.final_logits_bias"], ["u"], "node_add_2"),
            helper.make_node("Add", ["u", "zeros_like"], ["v"], "node_add_3"),
            helper.make_node("Sub", ["v", "centers"], ["logits"], "node_sub"),
        ],
        tensors(
            exp=X[0],
            val_7=W1,
            val_9=B1,
            zeros_like=B1 * 0,
            centers=np.linspace(-1, 2, B1.size, dtype="f"),
            **{frequencies: B1 + 1, "fc.bias": B1 * 2, "m.final_logits_bias": B1 * 3},
        ),
    )
    proto.producer_name = "pytorch"
    if folded:
        notes = {
            "exp": "['arange', 'neg']",
            "val_9": "['fc.shift']",
            "zeros_like": "['fc.shift']",
        }
        for name, parts in notes.items():
            info = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            info.metadata_props.add(key="pkg.onnxscript.optimizer.folded_from", value=parts)
            proto.graph.value_info.append(info)
    model = ot.load_onnx(proto)
    expected = {"val_7", "fc.bias", *(["val_9"] if folded else [])}
    assert {v.path for v in model.trainable_variables} == expected


@pytest.mark.parametrize("folded", [[[0, 0, 0]], [[0, -1e9, 0]], [[-np.inf, -np.inf, 0]]])
def test_masks_that_the_old_exporter_has_folded_are_no_weights(folded: Any) -> None:
    """It names them after the operator; BART's final biases are a buffer of zeros."""
    proto = model_of(
        [
            helper.make_node("MatMul", ["x", "onnx::MatMul_1"], ["h"], "/fc/MatMul"),
            helper.make_node("Add", ["h", "fc.bias"], ["a"], "/fc/Add"),
            helper.make_node("Add", ["a", "onnx::Add_2"], ["m"], "/Add"),
            helper.make_node("Add", ["m", "onnx::Add_3"], ["logits"], "/Add_1"),
        ],
        tensors(
            **{
                "onnx::MatMul_1": W1,
                "fc.bias": B1 * 0,
                "onnx::Add_2": np.resize(np.float32(folded), B1.shape),
                "onnx::Add_3": B1,
            }
        ),
    )
    proto.producer_name = "pytorch"
    trained = {v.path for v in ot.load_onnx(proto).trainable_variables}
    assert trained == {"onnx::MatMul_1", "fc.bias", "onnx::Add_3"}


CALL = "%embedding : [num_users=1] = call_function[target=torch.ops.aten.embedding.default](args = "


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("call", "producer", "zero", "stopped"),
    [
        ("(%p_w, %x, 2), kwargs = {})", "pytorch", None, [2]),
        ("(%p_w, %x), kwargs = {})", "pytorch", 2, []),
        # Where nothing is noted, it is the one row of zeros.
        ("", "pytorch", 2, [2]),
        ("", "pytorch", None, []),
        ("", "somebody", 2, []),
    ],
)
def test_the_row_of_padding_is_not_trained(
    call: str, producer: str, zero: int | None, stopped: list[int], compiled: bool
) -> None:
    """nn.Embedding(padding_idx=2), whose table is also used as it is."""
    table = W1.copy()
    if zero is not None:
        table[zero] = 0
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["w", "x"], ["rows"]),
            helper.make_node("ReduceSum", ["rows", "axes"], ["h"], keepdims=0),
            helper.make_node("Transpose", ["w"], ["turned"], perm=[1, 0]),
            helper.make_node("MatMul", ["h", "turned"], ["logits"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["batch", 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        tensors(w=table, axes=np.int64([1])),
    )
    if call:
        graph.node[0].metadata_props.add(key="pkg.torch.onnx.fx_node", value=CALL + call)
    opsets = [helper.make_opsetid("", 17)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name=producer)
    model = ot.load_onnx(proto)

    step = with_gradients(model)
    x = np.int64([[0, 2, 1], [2, 2, 3]])
    y, (gradient,) = (ot.function(step, fallback="error") if compiled else step)(x)
    h = table[x].sum(1)
    np.testing.assert_allclose(y, h @ table.T, rtol=1e-5, atol=1e-6)
    expected = np.tile(h.sum(0), (4, 1))
    for row in x.ravel():
        if row not in stopped:
            expected[row] += table.sum(0)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)


def test_codes_of_positions_are_not_trained() -> None:
    """The table of "Attention is all you need", which frameworks hold as a parameter."""
    places, rates = np.arange(6)[:, None], 10000 ** -(np.arange(4) / 4)
    code = np.concatenate([np.sin(places * rates), np.cos(places * rates)], 1).astype("f")
    learned = code + np.random.default_rng(0).normal(size=code.shape).astype("f") * 1e-3
    for table, trained in ((code, ["w"]), (code / 7 + 1, ["w"]), (learned, ["w", "places"])):
        proto = model_of(
            [
                helper.make_node("MatMul", ["x", "w"], ["h"]),
                helper.make_node("Add", ["h", "places"], ["logits"]),
            ],
            tensors(w=W1, places=table[None]),
        )
        model = ot.load_onnx(proto)
        assert [v.path for v in model.trainable_variables] == trained
        model.set_trainable(["w", "places"])
        assert len(model.trainable_variables) == 2


@pytest.mark.parametrize("noted", [False, True])
def test_what_an_exporter_repeats_stays_one_weight(tmp_path: Path, noted: bool) -> None:
    """A bias of relative positions: table[index], brought to (1, heads, places, places)."""
    table = np.random.default_rng(0).normal(size=(7, 2)).astype("f")
    places = np.arange(4)
    index = places[:, None] - places + 3
    bias = table[index].transpose(2, 0, 1)[None]
    proto = model_of(
        [
            helper.make_node("Unsqueeze", ["x", "axes"], ["h"]),
            helper.make_node("Add", ["h", "unsqueeze_9"], ["logits"]),
        ],
        tensors(axes=np.int64([1, 2]), unsqueeze_9=bias),
    )
    if noted:
        info = helper.make_tensor_value_info("unsqueeze_9", TensorProto.FLOAT, None)
        info.metadata_props.add(
            key="pkg.onnxscript.optimizer.folded_from", value="['table', 'index', 'view']"
        )
        proto.graph.value_info.append(info)
        proto.graph.metadata_props.add(
            key="pkg.torch.export.ExportedProgram.graph_signature",
            value="p_t: PARAMETER target='table'\n",
        )
    model = ot.load_onnx(proto)
    (weight,) = model.trainable_variables
    assert weight.shape == bias.shape
    factor = np.random.default_rng(1).normal(size=(5, 2, 4, 4)).astype("f")

    @ot.function(fallback="error")
    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = ot.ops.sum(model(x) * factor)
        gradient = tape.gradient(loss, weight)
        weight.assign_sub(gradient)
        return model(x)

    y = step(X)
    gradient = np.zeros_like(table)
    np.add.at(gradient, index, factor.sum(0).transpose(1, 2, 0))
    expected = (table - gradient)[index].transpose(2, 0, 1)[None]
    np.testing.assert_allclose(y, X[:, None, None] + expected, rtol=1e-4, atol=1e-5)
    written = onnx.load(model.save_onnx(tmp_path / "out.onnx"))
    array = onnx.numpy_helper.to_array(written.graph.initializer[1])
    np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-5)
    assert len(np.unique(array)) == table.size


@pytest.mark.parametrize(
    ("name", "table", "index"),
    [
        ("embedding_8", W1[:1, :4], np.zeros((5, 3), np.int64)),
        ("index_1", W1[:, :4], np.int64([[0, 1], [1, 0], [2, 2], [1, 1], [3, 0]])),
        ("expand", W1[:, :4].reshape(1, 4, 4), np.zeros(5, np.int64)),
        ("expand_2", np.zeros((1, 4, 4), "f"), np.zeros(5, np.int64)),
    ],
)
def test_rows_that_an_exporter_has_gathered_or_expanded_stay_one_weight(
    name: str, table: Any, index: Any
) -> None:
    """Of fixed sizes: rows of a table at constant positions; what is put before each example."""
    rows = table[index]
    proto = model_of(
        [
            helper.make_node("Unsqueeze", ["x", "axes"], ["h"]),
            helper.make_node("Mul", ["h", name], ["logits"]),
        ],
        tensors(axes=np.int64([1]), **{name: rows}),
    )
    proto.producer_name, factor = "pytorch", np.random.default_rng(1).normal(size=rows.shape)
    model = ot.load_onnx(proto)
    (weight,) = model.trainable_variables

    @ot.function(fallback="error")
    def step(x: Any) -> None:
        with ot.GradientTape() as tape:
            loss = ot.ops.sum(model(x) * factor.astype("f"))
        weight.assign_sub(tape.gradient(loss, weight))

    step(X)
    gradient = np.zeros(table.shape)
    np.add.at(gradient, index, factor * X[:, None])
    trained = model.trained_weights()[name]
    np.testing.assert_allclose(trained, (table - gradient)[index], rtol=1e-4, atol=1e-5)


def test_weights_that_are_equal_without_being_repeated_stay_apart() -> None:
    """Rows of one number; and a parameter that has a name like that of an operation."""
    apart = np.stack([X, X])
    proto = model_of(
        [
            helper.make_node("Add", ["x", "expand_1"], ["h"]),
            helper.make_node("Add", ["h", "expand"], ["logits"]),
        ],
        tensors(expand_1=np.ones((5, 4), "f"), expand=apart),
    )
    proto.graph.metadata_props.add(
        key="pkg.torch.export.ExportedProgram.graph_signature",
        value="p_e: PARAMETER target='expand'\np_f: PARAMETER target='expand_1'\n",
    )
    model = ot.load_onnx(proto, trainable=["expand", "expand_1"])
    for weight in model.trainable_variables:
        other = np.arange(np.prod(weight.shape), dtype="f").reshape(weight.shape)
        weight.assign(other)
        np.testing.assert_array_equal(model.trained_weights()[weight.path], other)


def called(node: onnx.NodeProto, call: str) -> onnx.NodeProto:
    """The node with the note of the call that it stems from."""
    result, _, rest = call.partition(" = ")
    text = f"%{result} : [num_users=1] = call_function[target=torch.ops.aten.{rest}, kwargs = {{}})"
    node.metadata_props.add(key="pkg.torch.onnx.fx_node", value=text)
    return node


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("optimized", [False, True])
def test_nothing_flows_through_what_the_framework_has_detached(
    compiled: bool, optimized: bool
) -> None:
    """y = x W1 + stop(x W1) W2, where an Identity stands for the stop, or a call alone tells."""
    stop = called(
        helper.make_node("Identity", ["h"], ["detach"]), "detach = detach.default](args = (%h,)"
    )
    product = helper.make_node("MatMul", ["h" if optimized else "detach", "w2"], ["g"])
    second = np.random.default_rng(2).normal(size=(8, 8)).astype("f")
    proto = model_of(
        [
            helper.make_node("MatMul", ["x", "w1"], ["h"]),
            *(() if optimized else (stop,)),
            called(product, "g = matmul.default](args = (%detach, %p_w2)"),
            called(
                helper.make_node("Add", ["h", "g"], ["logits"]),
                "add = add.Tensor](args = (%h, %g)",
            ),
        ],
        tensors(w1=W1, w2=second),
    )
    model = ot.load_onnx(proto)

    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            y = model(x)
        return tape.gradient(y, model.trainable_variables)

    by_w1, by_w2 = (ot.function(step, fallback="error") if compiled else step)(X)
    ones = np.ones((len(X), 8), "f")
    np.testing.assert_allclose(by_w1, X.T @ ones, rtol=1e-5)
    np.testing.assert_allclose(by_w2, (X @ W1).T @ ones, rtol=1e-5)


@pytest.mark.parametrize("lost", ["numbered", "merged", "ambiguous"])
def test_detached_values_whose_places_are_lost_are_told(lost: str) -> None:
    """A number without a call; one sum where there were two; two values that no call names."""
    written = {
        "numbered": "add = add.Tensor](args = (%h, %detach_1)",
        "merged": "add = add.Tensor](args = (%h, %detach)",
        "ambiguous": "add = add.Tensor](args = (%view, %detach)",
    }
    after = "mul = mul.Tensor](args = (%add, %add_1)" if lost == "merged" else "mul = mul.Tensor]("
    proto = model_of(
        [
            helper.make_node("MatMul", ["x", "w1"], ["h"]),
            helper.make_node("Tanh", ["h"], ["g"]),
            called(helper.make_node("Add", ["h", "g"], ["add"]), written[lost]),
            called(helper.make_node("Mul", ["add", "add"], ["logits"]), after),
        ],
        tensors(w1=W1),
    )
    with pytest.warns(UserWarning, match=r"removed calls of torch\.Tensor\.detach.*optimize=False"):
        ot.load_onnx(proto)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    ("producer", "noted"), [("pytorch", False), ("pytorch", True), ("another", False)]
)
def test_a_difference_that_is_added_again_passes_straight_through(
    swapped: bool, producer: str, noted: bool
) -> None:
    """h + stop(q - h), of which PyTorch's exporter leaves h + (q - h); what is noted decides."""
    total = helper.make_node("Add", ["d", "h"] if swapped else ["h", "d"], ["logits"])
    if noted:
        called(total, "add = add.Tensor](args = (%h, %d)")
    proto = model_of(
        [
            helper.make_node("MatMul", ["x", "w1"], ["h"]),
            helper.make_node("Mul", ["h", "scale"], ["q"]),
            helper.make_node("Sub", ["q", "h"], ["d"]),
            total,
        ],
        tensors(w1=W1, scale=B1),
    )
    proto.producer_name = producer
    model = ot.load_onnx(proto)
    with ot.GradientTape() as tape:
        y = model(X)
    np.testing.assert_allclose(y, X @ W1 * B1, rtol=1e-4, atol=1e-5)
    gradient = tape.gradient(y, {v.path: v for v in model.weights}["w1"])
    ones = np.ones((len(X), 8), "f")
    straight = producer == "pytorch" and not noted
    expected = X.T @ (ones if straight else ones * B1)
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4)
