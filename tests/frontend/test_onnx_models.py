"""load_onnx: what it makes of a file, what it writes back, what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

import onnxtape as ot
from onnxtape.errors import GradientError, ModelError
from tests.frontend.onnx_graphs import (
    B1,
    RNG,
    W1,
    W2,
    X,
    mlp,
    model_of,
    run,
    saved,
    tensors,
    with_gradients,
)

ops = ot.ops


# Calling -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["path", "text", "bytes", "proto"])
def test_it_computes_what_onnx_runtime_does(tmp_path: Path, source: str) -> None:
    path = saved(tmp_path / "net.onnx", mlp())
    given = {"path": path, "text": str(path), "bytes": path.read_bytes(), "proto": mlp()}[source]
    model = ot.load_onnx(given)
    (expected,) = run(mlp(), x=X)
    for found in (model(X), model([X]), model({"x": X}), model(x=X), ot.function(model)(X)):
        np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-5, atol=1e-6)
    assert model.weight_names == ["fc1.weight", "fc1.bias", "fc2.weight"]
    assert [v.path for v in model.trainable_variables] == model.weight_names
    assert model.input_names == ["x"]
    assert model.name == ("net" if source in ("path", "text") else "model")


def test_several_outputs_are_found_by_place_and_by_name() -> None:
    model = ot.load_onnx(mlp(outputs=("a", "logits")))
    out = model(X)
    a, logits = out
    assert out[1] is logits is out["logits"]
    assert out["a"] is a is out[0]
    with pytest.raises(KeyError, match="no output 'logit'; did you mean 'logits'"):
        out["logit"]
    traced = ot.function(model, fallback="error")(X)
    np.testing.assert_allclose(traced["a"], np.asarray(a), rtol=1e-6)


def test_its_summary_lists_weights() -> None:
    texts: list[str] = []
    ot.load_onnx(mlp(), trainable="fc2.*").summary(print_fn=texts.append, show_trainable=True)
    cells = [line.strip("│ ").split("│") for line in texts[0].splitlines() if "│" in line]
    rows = [[cell.strip() for cell in row] for row in cells]
    shapes = [str(array.shape) for array in (W1, B1, W2)]
    names = ["fc1.weight", "fc1.bias", "fc2.weight"]
    assert [row[:2] for row in rows] == [list(pair) for pair in zip(names, shapes, strict=True)]
    assert [row[3] for row in rows] == ["N", "N", "Y"]


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 21])
def test_old_opsets_are_brought_up(opset: int) -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("Softmax", ["a"], ["s"], axis=1),
        helper.make_node("ReduceMean", ["s"], ["logits"], axes=[1], keepdims=0)
        if opset < 18
        else helper.make_node("ReduceMean", ["s", "axes"], ["logits"], keepdims=0),
    ]
    more = {"axes": np.int64([1])} if opset >= 18 else {}
    proto = model_of(nodes, tensors(w=W1, b=B1, **more), opset=opset)
    if opset < 9:  # Initializers were inputs then.
        proto.graph.input.extend(
            helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape)
            for n, a in (("w", W1), ("b", B1))
        )
    model = ot.load_onnx(proto)
    np.testing.assert_allclose(model(X), run(proto, x=X)[0], rtol=1e-5, atol=1e-6)
    assert model.input_names == ["x"]


def test_local_functions_are_inlined() -> None:
    function = helper.make_function(
        "local", "Double", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    proto = model_of(
        [
            helper.make_node("Double", ["x"], ["d"], domain="local"),
            helper.make_node("MatMul", ["d", "w"], ["logits"]),
        ],
        tensors(w=W1),
        functions=[function],
    )
    proto.opset_import.append(helper.make_opsetid("local", 1))
    np.testing.assert_allclose(ot.load_onnx(proto)(X), 2 * X @ W1, rtol=1e-5)


def test_local_functions_have_defaults_and_constants(tmp_path: Path) -> None:
    proto = parser.parse_model("""
        <ir_version: 9, opset_import: ["": 18, "local": 1]>
        net (float[n, 4] x) => (float[n, 4] logits) {
            h = local.scaled <by = 0.5> (x)
            p = MatMul(h, w)
            logits = local.twice(p)
        }
        <domain: "local", opset_import: ["": 18, "local": 1]>
        twice (a) => (c) { b = local.scaled(a)  c = local.scaled(b) }
        <domain: "local", opset_import: ["": 18]>
        scaled <by: float = 3.0> (a) => (d) {
            k = Constant <value_float: float = @by> ()
            b = Mul(a, k)
            shift = Constant <value_floats = [1.0, 2.0, -1.0, 0.0]> ()
            c = Add(b, shift)
            d = Tanh(c)
        }""")
    proto.graph.initializer.extend(tensors(w=W1[:, :4]))
    model = ot.load_onnx(proto)
    for step in (model, ot.function(model, fallback="error")):
        np.testing.assert_allclose(step(X), run(proto, x=X)[0], rtol=1e-5, atol=1e-6)
    assert [v.path for v in model.variables] == ["w"]
    model.variables[0].assign(W1[:, 4:])
    saved = model.save_onnx(tmp_path / "saved.onnx")
    np.testing.assert_allclose(run(saved, x=X)[0], model(X), rtol=1e-5, atol=1e-6)


def test_wrong_inputs_are_named() -> None:
    model = ot.load_onnx(mlp())
    with pytest.raises(ValueError, match="takes the inputs x, but was given none"):
        model()
    with pytest.raises(ValueError, match="takes the inputs x, but was given y"):
        model(y=X)
    with pytest.raises(ValueError, match="but was given x and 1 more"):
        model(X, X)


# Training ----------------------------------------------------------------------------------------


def test_gradients_are_those_of_the_formula() -> None:
    model = ot.load_onnx(mlp())
    with ot.GradientTape() as tape:
        loss = ops.sum(model(X) ** 2)
    w1, b1, w2 = (np.asarray(g) for g in tape.gradient(loss, model.trainable_variables))
    h = X @ W1 + B1
    upstream = 2 * np.maximum(h, 0) @ W2
    back = (upstream @ W2.T) * (h > 0)
    np.testing.assert_allclose(w2, np.maximum(h, 0).T @ upstream, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(w1, X.T @ back, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(b1, back.sum(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("fc2.weight", ["fc2.weight"]),
        ("fc1.*", ["fc1.weight", "fc1.bias"]),
        (["fc1.bias", "fc2.*"], ["fc1.bias", "fc2.weight"]),
        (lambda name: name.endswith("bias"), ["fc1.bias"]),
        ([], []),
    ],
)
def test_what_is_trained_can_be_chosen(selection: Any, expected: list[str]) -> None:
    model = ot.load_onnx(mlp(), trainable=selection)
    assert [v.path for v in model.trainable_variables] == expected


def test_a_weight_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"has no weight 'fc2.wieght'; did you mean 'fc2.weight'"):
        ot.load_onnx(mlp(), trainable="fc2.wieght")


def test_what_no_gradient_reaches_is_not_trained() -> None:
    """Integers, running statistics, scalars, and what lies behind an operator without gradient."""
    proto = model_of(
        [
            helper.make_node("Floor", ["x"], ["f"]),
            helper.make_node("MatMul", ["f", "w"], ["h"]),
            helper.make_node("ArgMax", ["h"], ["best"], axis=1, keepdims=1),
            helper.make_node("Gather", ["table", "best"], ["g"]),
            helper.make_node("Squeeze", ["g", "axis"], ["flat"]),
            helper.make_node("Mul", ["flat", "half"], ["scaled"]),
            helper.make_node(
                "BatchNormalization", ["scaled", "scale", "shift", "mean", "var"], ["logits"]
            ),
        ],
        tensors(
            w=W1, table=W1.T + 1, half=np.float32(0.5), axis=np.int64([1]), scale=np.ones(4, "f"),
            shift=np.zeros(4, "f"), mean=np.zeros(4, "f") + 0.1, var=np.ones(4, "f") * 2,
        ),
    )  # fmt: skip
    model = ot.load_onnx(proto)
    assert [v.path for v in model.trainable_variables] == ["table", "scale", "shift"]
    model.set_trainable(["w"])
    with ot.GradientTape() as tape:
        y = model(X)
    assert tape.gradient(y, model.trainable_variables) == [None]


def test_batch_normalization_and_dropout_train_on_request() -> None:
    stats = {"mean": np.float32([0, 1, 2, 3]), "var": np.float32([1, 2, 3, 4])}
    proto = model_of(
        [
            helper.make_node(
                "BatchNormalization", ["x", "scale", "shift", "mean", "var"], ["n"], momentum=0.8
            ),
            helper.make_node("Dropout", ["n", "ratio"], ["logits"]),
        ],
        tensors(scale=np.ones(4, "f"), shift=np.zeros(4, "f"), ratio=np.float32(0.5), **stats),
    )
    model = ot.load_onnx(proto)
    x = RNG.normal(size=(256, 4)).astype("f")
    np.testing.assert_allclose(model(x), run(proto, x=x)[0], rtol=1e-4, atol=1e-4)
    y = np.asarray(ot.function(lambda x: model(x, training=True), fallback="error")(x))
    normal = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    kept = y != 0
    assert 0.4 < kept.mean() < 0.6
    np.testing.assert_allclose(y[kept], 2 * normal[kept], rtol=1e-3, atol=1e-4)
    weights = model.trained_weights()
    np.testing.assert_allclose(weights["mean"], 0.8 * stats["mean"] + 0.2 * x.mean(0), rtol=1e-4)
    np.testing.assert_allclose(weights["var"], 0.8 * stats["var"] + 0.2 * x.var(0), rtol=1e-3)


def test_an_operator_without_gradient_is_named_with_its_node_and_file(tmp_path: Path) -> None:
    proto = model_of(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("TopK", ["h", "k"], ["v", "i"], "best"),
            helper.make_node("Cast", ["i"], ["c"], "cast", to=TensorProto.FLOAT),
            helper.make_node("MyOwn", ["h"], ["logits"], "own", domain="com.example"),
        ],
        tensors(w=W1, k=np.int64([1])),
    )
    proto.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(ModelError, match=r"'net.onnx' holds com.example::MyOwn \(node 'own'\)"):
        ot.load_onnx(saved(tmp_path / "net.onnx", proto))


def test_a_refused_gradient_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxtape.compiler import registry

    model = ot.load_onnx(saved(tmp_path / "net.onnx", mlp()))
    table = {op: rule for op, rule in registry._TABLE.items() if op != "Relu"}
    monkeypatch.setattr(registry, "_TABLE", table)
    with ot.GradientTape() as tape:
        y = model(X)
    with pytest.raises(GradientError, match=r"Relu has no gradient rule(?s:.*)net.onnx.*'relu'"):
        tape.gradient(y, model.trainable_variables)


# Weights in other places --------------------------------------------------------------------------


def test_weights_in_constants_are_weights(tmp_path: Path) -> None:
    proto = model_of(
        [
            helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(W1)),
            helper.make_node("Constant", [], ["b"], value_floats=B1.tolist()),
            helper.make_node("Gemm", ["x", "w", "b"], ["logits"]),
        ],
        [],
    )
    model = ot.load_onnx(proto)
    assert [v.path for v in model.trainable_variables] == ["w", "b"]
    for variable in model.trainable_variables:
        variable.assign_add(ops.ones(variable.shape))
    path = model.save_onnx(tmp_path / "out.onnx")
    np.testing.assert_allclose(run(path, x=X)[0], X @ (W1 + 1) + B1 + 1, rtol=1e-5)


@pytest.mark.parametrize("producer", ["", "pytorch"])
def test_numbers_in_constants_are_no_weights(tmp_path: Path, producer: str) -> None:
    """Such as the scales that torch.onnx.export (dynamo=False) writes, in branches too."""

    def number(name: str, *values: float) -> Any:
        return helper.make_node(
            "Constant", [], [name], value=numpy_helper.from_array(np.float32(values))
        )

    def branch(name: str, scale: float) -> Any:
        nodes = [number("scale", scale), helper.make_node("Mul", ["h", "scale"], [name])]
        return helper.make_graph(nodes, name, [], [helper.make_empty_tensor_value_info(name)])

    proto = model_of(
        [
            number("half", 0.5),
            number("shift", *B1),
            helper.make_node("Mul", ["x", "half"], ["s"]),
            helper.make_node("MatMul", ["s", "w"], ["m"]),
            helper.make_node("Add", ["m", "shift"], ["h"]),
            helper.make_node("ReduceMax", ["h"], ["top"], keepdims=0),
            helper.make_node("Greater", ["top", "zero"], ["positive"]),
            helper.make_node(
                "If",
                ["positive"],
                ["logits"],
                then_branch=branch("a", 2),
                else_branch=branch("b", 3),
            ),
        ],
        tensors(w=W1, zero=np.float32(0)),
    )
    proto.producer_name = producer
    model = ot.load_onnx(proto)
    trained = ["w"] if producer else ["shift", "w"]
    assert sorted(v.path for v in model.trainable_variables) == trained
    np.testing.assert_allclose(model(X), run(proto, x=X)[0], rtol=1e-5)
    for variable in model.trainable_variables:
        variable.assign_add(ops.ones(variable.shape))
    saved = model.save_onnx(tmp_path / "trained.onnx")
    np.testing.assert_allclose(model(X), run(saved, x=X)[0], rtol=1e-5)


def test_a_bias_of_one_number_in_a_constant_is_a_weight() -> None:
    proto = model_of(
        [
            helper.make_node("Constant", [], ["b"], value_floats=[0.5]),
            helper.make_node("Gemm", ["x", "w", "b"], ["logits"]),
        ],
        tensors(w=W1[:, :1]),
    )
    assert {v.path for v in ot.load_onnx(proto).trainable_variables} == {"w", "b"}


@pytest.mark.parametrize("transposed", [False, True])
def test_a_weight_that_was_written_twice_is_one(tmp_path: Path, transposed: bool) -> None:
    square = RNG.normal(size=(4, 4)).astype("f")
    proto = model_of(
        [
            helper.make_node("MatMul", ["x", "embed"], ["h"]),
            helper.make_node("MatMul", ["h", "unembed"], ["logits"]),
        ],
        tensors(embed=square, unembed=square.T if transposed else square),
    )
    model = ot.load_onnx(proto)
    (weight,) = model.trainable_variables
    assert weight.path == "embed"
    second = square.T if transposed else square
    np.testing.assert_allclose(model(X), X @ square @ second, rtol=1e-4)
    with ot.GradientTape() as tape:
        y = model(X)
    gradient = np.asarray(tape.gradient(y, weight))
    ones = np.ones((5, 4), "f")
    by_second = (X @ square).T @ ones
    expected = X.T @ (ones @ second.T) + (by_second.T if transposed else by_second)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)
    weight.assign(square * 2)
    saved_as = onnx.load(model.save_onnx(tmp_path / "out.onnx"))
    for initializer in saved_as.graph.initializer:
        before = square if initializer.name == "embed" else second
        np.testing.assert_array_equal(numpy_helper.to_array(initializer), before * 2)
    assert ot.load_onnx(proto, trainable="unembed").trainable_variables[0].path == "embed"


def test_gradients_that_the_schemas_do_not_mention() -> None:
    """By the grid of GridSample: spatial transformers learn there."""
    proto = model_of(
        [
            helper.make_node("MatMul", ["x", "w"], ["g"]),
            helper.make_node("Reshape", ["g", "shape"], ["grid"]),
            helper.make_node("GridSample", ["image", "grid"], ["logits"]),
        ],
        tensors(w=W1, image=np.ones((5, 1, 3, 3), "f"), shape=np.int64([5, 2, 2, 2])),
        opset=20,
    )
    assert [v.path for v in ot.load_onnx(proto).trainable_variables] == ["w", "image"]


def test_sequences_become_tensors_again() -> None:
    """As frameworks write a split into a tuple; gradients go through."""
    proto = model_of(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("SplitToSequence", ["h", "three"], ["parts"], axis=1),
            helper.make_node("SequenceAt", ["parts", "one"], ["second"]),
            helper.make_node("SequenceInsert", ["parts", "second", "one"], ["more"]),
            helper.make_node("SequenceErase", ["more"], ["fewer"]),
            helper.make_node("SequenceConstruct", ["second", "second"], ["pair"]),
            helper.make_node("ConcatFromSequence", ["fewer"], ["a"], axis=1),
            helper.make_node("ConcatFromSequence", ["pair"], ["b"], axis=1, new_axis=1),
            helper.make_node("ReduceSum", ["b", "axes"], ["c"], keepdims=0),
            helper.make_node("Concat", ["a", "c"], ["logits"], axis=1),
        ],
        tensors(w=W1, three=np.int64(3), one=np.int64(1), axes=np.int64([1])),
    )
    model = ot.load_onnx(proto)

    step = ot.function(with_gradients(model), fallback="error")
    y, (gradient,) = step(X)
    h = X @ W1
    second = h[:, 3:6]
    expected = np.concatenate([h[:, :3], second, second, 2 * second], 1)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(y, run(proto, x=X)[0], rtol=1e-4, atol=1e-5)
    by_h = np.tile(np.float32([1, 1, 1, 4, 4, 4, 0, 0]), (5, 1))
    np.testing.assert_allclose(gradient, X.T @ by_h, rtol=1e-4, atol=1e-5)


# Saving and truncating ----------------------------------------------------------------------------


def test_the_saved_file_is_the_same_but_for_its_weights(tmp_path: Path) -> None:
    proto = mlp(opset=13)
    proto.metadata_props.add(key="author", value="me")
    proto.graph.doc_string = "as it was"
    model = ot.load_onnx(proto, trainable="fc2.*")
    optimizer = ot.optimizers.SGD(0.1)
    labels = np.arange(5) % 3
    loss_fn = ot.losses.SparseCategoricalCrossentropy(from_logits=True)

    @ot.function(fallback="error")
    def step(x: Any, y: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = loss_fn(y, model(x, training=True))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    losses = [float(step(X, labels)) for _ in range(10)]
    assert losses[-1] < losses[0]
    path = model.save_onnx(tmp_path / "trained.onnx")
    np.testing.assert_allclose(run(path, x=X)[0], np.asarray(model(X)), rtol=1e-5, atol=1e-6)
    trained = onnx.load(path)
    assert not np.array_equal(numpy_helper.to_array(trained.graph.initializer[2]), W2)
    trained.graph.initializer[2].CopyFrom(proto.graph.initializer[2])
    assert trained == proto


def test_weights_beside_the_file_stay_there(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    big = RNG.normal(size=(4, 300)).astype("f")
    proto = model_of(
        [helper.make_node("Gemm", ["x", "w", "b"], ["logits"])],
        tensors(w=big, b=np.zeros(300, "f")),
    )
    source = tmp_path / "in" / "net.onnx"
    onnx.save_model(
        proto, source, save_as_external_data=True, location="net.bin", size_threshold=2000
    )
    model = ot.load_onnx(source)
    model.trainable_variables[0].assign(big * 3)
    path = model.save_onnx(tmp_path / "out.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out.onnx", "out.onnx.data"]
    assert path.stat().st_size < 2500
    np.testing.assert_allclose(run(path, x=X)[0], X @ (big * 3), rtol=1e-4, atol=1e-5)


def test_a_truncated_model_takes_another_head(tmp_path: Path) -> None:
    model = ot.load_onnx(mlp())
    backbone = model.truncate("a")
    assert [v.path for v in backbone.weights] == ["fc1.weight", "fc1.bias"]
    assert len(model.weights) == 3
    assert backbone.weights[0] is model.weights[0]
    np.testing.assert_allclose(backbone(X), np.maximum(X @ W1 + B1, 0), rtol=1e-5)
    backbone.trainable = False
    head = ot.layers.Dense(2)
    both = ot.Sequential([backbone, head])
    optimizer = ot.optimizers.Adam(0.05)

    @ot.function(fallback="error")
    def step(x: Any, y: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = ops.mean((both(x) - y) ** 2)
        optimizer.apply(tape.gradient(loss, both.trainable_variables), both.trainable_variables)
        return loss

    losses = [float(step(X, np.ones((5, 2), "f"))) for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]
    np.testing.assert_array_equal(model.weights[0], W1)
    assert [v.path for v in both.trainable_variables] == [v.path for v in head.weights]
    with pytest.raises(ModelError, match="ends at 'a' and is not the whole"):
        backbone.save_onnx(tmp_path / "no.onnx")
    with pytest.raises(ValueError, match="has no value 'aa'; did you mean 'a'"):
        model.truncate("aa")


def test_weights_that_the_model_fills_itself(tmp_path: Path) -> None:
    """As in files of which only the architecture counts; trained, they are initializers."""
    proto = model_of(
        [
            helper.make_node(
                "ConstantOfShape", ["shape"], ["w"], value=tensors(v=np.float32([0.5]))[0]
            ),
            helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
            helper.make_node("Gemm", ["x", "w"], ["h"]),
            helper.make_node("ReduceSum", ["zeros"], ["none"], keepdims=0),
            helper.make_node("Add", ["h", "none"], ["logits"]),
        ],
        tensors(shape=np.int64([4, 3])),
    )
    model = ot.load_onnx(proto)
    (weight,) = model.trainable_variables
    assert weight.path == "w"
    same = onnx.load(model.save_onnx(tmp_path / "same.onnx"))
    assert same == proto
    weight.assign(W1[:, :3])
    path = model.save_onnx(tmp_path / "out.onnx")
    np.testing.assert_allclose(run(path, x=X)[0], X @ W1[:, :3], rtol=1e-5)
