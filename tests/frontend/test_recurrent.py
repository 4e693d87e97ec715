"""Recurrent layers and the operators under them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxtape as ot
from onnxtape.engine import B
from onnxtape.errors import ShapeError
from tests.reference import parity


@pytest.mark.parametrize("name", parity.names("recurrent"))
def test_as_keras(name: str) -> None:
    parity.check("recurrent", name, rtol=2e-5, atol=2e-5)


# The operators, as ONNX Runtime computes them and as a compiled step does -------------------------

H = 3


def _operands(op: str, directions: int, extras: dict[int, np.ndarray[Any, Any]]) -> list[Any]:
    rows = {"RNN": 1, "GRU": 3, "LSTM": 4}[op] * H
    rng = np.random.default_rng(0)

    def part(*shape: int) -> np.ndarray[Any, Any]:
        return rng.uniform(-1, 1, shape).astype(np.float32)

    inputs: list[Any] = [part(4, 2, 3), part(directions, rows, 3), part(directions, rows, H)]
    inputs += [part(directions, 2 * rows)]
    inputs += [extras.get(i) for i in range(4, 1 + max([3, *extras]))]
    return inputs


STATE = np.random.default_rng(1).uniform(-1, 1, (1, 2, H)).astype(np.float32)
PEEPHOLES = np.random.default_rng(2).uniform(-1, 1, (1, 3 * H)).astype(np.float32)
LENGTHS = np.asarray([4, 2], np.int32)
OPERATORS: list[tuple[str, dict[str, Any], dict[int, Any]]] = [
    ("RNN", {"activations": ["Affine"], "activation_alpha": [0.7], "activation_beta": [0.1]}, {}),
    ("RNN", {"direction": "bidirectional", "clip": 0.4}, {4: LENGTHS}),
    ("RNN", {"activations": ["ScaledTanh"], "activation_alpha": [1.3], "activation_beta": [0.7]},
     {5: STATE}),
    ("GRU", {"direction": "reverse"}, {4: LENGTHS, 5: STATE}),
    ("GRU", {"linear_before_reset": 1, "activations": ["HardSigmoid", "Softsign"]}, {5: STATE}),
    ("LSTM", {"direction": "reverse"}, {4: LENGTHS, 5: STATE, 6: STATE[::-1], 7: PEEPHOLES}),
    ("LSTM", {"direction": "bidirectional", "activations": ["sigmoid", "TANH", "relu"] * 2}, {}),
    ("LSTM", {"input_forget": 1}, {5: STATE, 6: STATE}),
    ("LSTM", {"clip": 0.5}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "attributes", "extras"), OPERATORS)
@pytest.mark.parametrize("known_length", [True, False])
def test_a_compiled_step_computes_what_the_operator_does(
    op: str, attributes: dict[str, Any], extras: dict[int, Any], known_length: bool
) -> None:
    """Its own forward pass, written out or as a Scan, stands in for the operator there."""
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    x, *others = _operands(op, directions, extras)
    outputs = 3 if op == "LSTM" else 2
    weights = [None if w is None else ot.convert_to_tensor(w) for w in others]

    def apply(x: Any) -> Any:
        return B.op_multi(op, x, *weights, outputs=outputs, hidden_size=H, **attributes)

    @ot.function(fallback="error", input_signature=[ot.TensorSpec((None, 2, 3))])
    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            tape.watch(x)
            made = apply(x)
            total = sum(ot.ops.sum(y * y) for y in made)
        return [*made, tape.gradient(total, x)]

    if known_length:
        step = ot.function(step.python_function, fallback="error")
    found = [y.numpy() for y in step(x)]
    operators = {node.op_type for node in step.get_concrete_function(x).model.graph.node}
    assert op not in operators
    assert ("Scan" in operators) is not known_length
    expected = [y.numpy() for y in apply(ot.convert_to_tensor(x))]
    for actual, wanted in zip(found, expected, strict=False):
        np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_a_scan_is_that_of_the_written_out_steps() -> None:
    layer = ot.layers.LSTM(3, return_sequences=True)
    layer.build((None, None, 2))
    x = np.random.default_rng(0).normal(size=(2, 5, 2)).astype(np.float32)

    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            y = layer(x)
            loss = ot.ops.sum(y * y)
        return tape.gradient(loss, layer.trainable_weights)

    known = ot.function(step, fallback="error")(x)
    dynamic = ot.function(step, fallback="error", input_signature=[ot.TensorSpec((None, None, 2))])
    for length in (5, 3, 1):
        eager = step(ot.convert_to_tensor(x[:, :length]))
        for a, b in zip(dynamic(x[:, :length]), eager, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)
    for a, b in zip(known, step(ot.convert_to_tensor(x)), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)
    assert dynamic.trace_count == 1


def test_long_sequences_are_not_written_out() -> None:
    layer = ot.layers.SimpleRNN(2)
    layer.build((None, None, 2))

    @ot.function(fallback="error")
    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            total = ot.ops.sum(layer(x))
        return tape.gradient(total, layer.trainable_weights)

    for length, wanted in ((128, False), (129, True)):
        graph = step.get_concrete_function(ot.TensorSpec((2, length, 2))).model.graph
        assert ("Scan" in {node.op_type for node in graph.node}) is wanted
    x = np.random.default_rng(0).normal(size=(2, 129, 2)).astype(np.float32)
    for found, eager in zip(step(x), step.python_function(ot.convert_to_tensor(x)), strict=True):
        np.testing.assert_allclose(found.numpy(), eager.numpy(), rtol=1e-4, atol=1e-5)


def test_one_transpose_turns_all_steps() -> None:
    layer = ot.layers.LSTM(4, return_sequences=True)
    layer.build((None, None, 2))

    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            y = layer(x)
            loss = ot.ops.sum(y * y)
        return tape.gradient(loss, layer.trainable_weights)

    def transposes(length: int) -> int:
        compiled = ot.function(step, fallback="error")
        graph = compiled.get_concrete_function(ot.TensorSpec((3, length, 2))).model.graph
        assert "Scan" not in {node.op_type for node in graph.node}
        return sum(node.op_type == "Transpose" for node in graph.node)

    assert transposes(16) == transposes(64)


# Inputs from a table ------------------------------------------------------------------------------


def _of_table(layer: Any, ids: Any, compiled: bool, asked: bool = False) -> list[Any]:
    """Gradients by a table of 5 rows and by the layer's weights; the compiled graph's nodes last.

    Args:
        asked: also by the rows that are taken from it, which come first.
    """
    table = ot.convert_to_tensor(np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32))
    weights = layer.trainable_weights

    def step(ids: Any, table: Any) -> Any:
        with ot.GradientTape() as tape:
            tape.watch(table)
            x = ot.ops.take(table, ids, axis=0)
            y = layer(x)
            loss = ot.ops.sum(y * y)
        return tape.gradient(loss, [x, table, *weights] if asked else [table, *weights])

    if not compiled:
        return [*step(ot.convert_to_tensor(ids), table), []]
    function = ot.function(step, fallback="error")
    nodes = function.get_concrete_function(ids, table).model.graph.node
    return [*function(ids, table), nodes]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ot.layers.SimpleRNN(3, return_sequences=True),
        lambda: ot.layers.GRU(3, return_sequences=True),
        lambda: ot.layers.GRU(3, reset_after=False, go_backwards=True),
        lambda: ot.layers.LSTM(3, return_sequences=True),
        lambda: ot.layers.Bidirectional(ot.layers.LSTM(3)),
    ],
)
@pytest.mark.parametrize("length", [6, 40])
def test_products_with_a_small_table_are_made_once_for_each_row(make: Any, length: int) -> None:
    layer = make()
    layer.build((None, None, 2))
    ids = np.random.default_rng(1).integers(0, 5, (2, length))
    *expected, _ = _of_table(layer, ids, compiled=False, asked=True)
    for compiled in (False, True):
        *found, nodes = _of_table(layer, ids, compiled)
        for a, b in zip(found, expected[1:], strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)
    # The inputs themselves are never there.
    gathered = [node for node in nodes if node.op_type == "Gather"]
    assert gathered
    inputs = {name for node in gathered for name in node.input}
    products = {name for node in nodes if node.op_type == "Gemm" for name in node.output}
    assert inputs & products


def test_gathered_inputs_that_somebody_asks_for_stay() -> None:
    layer = ot.layers.LSTM(3)
    layer.build((None, None, 2))
    ids = np.random.default_rng(1).integers(0, 5, (2, 6))
    *found, _ = _of_table(layer, ids, compiled=True, asked=True)
    by_inputs, by_table = found[0].numpy(), found[1].numpy()
    expected = np.zeros_like(by_table)
    np.add.at(expected, ids, by_inputs)
    np.testing.assert_allclose(by_table, expected, rtol=1e-4, atol=1e-6)


def test_a_table_of_many_rows_is_gathered_first() -> None:
    layer = ot.layers.LSTM(3)
    layer.build((None, None, 2))
    ids = np.random.default_rng(1).integers(0, 5, (2, 4))
    *_, nodes = _of_table(layer, ids, compiled=True)
    products = {name for node in nodes if node.op_type == "Gemm" for name in node.output}
    assert not any(products & set(n.input) for n in nodes if n.op_type == "Gather")


# Dropout ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["SimpleRNN", "GRU", "LSTM"])
@pytest.mark.parametrize("option", ["dropout", "recurrent_dropout"])
def test_dropout_only_in_training_and_one_mask_for_all_steps(kind: str, option: str) -> None:
    layer = getattr(ot.layers, kind)(8, return_sequences=True, seed=3, **{option: 0.5})
    x = np.ones((2, 4, 6), np.float32)
    plain = layer(x, training=False).numpy()
    np.testing.assert_array_equal(layer(x).numpy(), plain)
    dropped = layer(x, training=True).numpy()
    assert not np.allclose(dropped, plain)
    assert not np.allclose(layer(x, training=True).numpy(), dropped)


def test_inputs_are_dropped_alike_in_all_steps() -> None:
    """An RNN that hands on its inputs shows which of them were dropped."""
    layer = ot.layers.SimpleRNN(4, activation="linear", use_bias=False, dropout=0.5, seed=1,
                                return_sequences=True)  # fmt: skip
    layer.build((None, 5, 4))
    layer.set_weights([np.eye(4), np.zeros((4, 4))])
    y = layer(np.ones((3, 5, 4), np.float32), training=True).numpy()
    assert set(np.unique(y)) == {0.0, 2.0}
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1], y.shape))


# What layers refuse, and what they are made of ---------------------------------------------------


def test_weights_have_keras_names_and_shapes() -> None:
    layer = ot.layers.GRU(3)
    layer.build((None, None, 2))
    assert [w.shape for w in layer.weights] == [(2, 9), (3, 9), (2, 9)]
    assert [w.name for w in layer.weights] == ["kernel", "recurrent_kernel", "bias"]
    lstm = ot.layers.LSTM(2)
    lstm.build((None, None, 2))
    np.testing.assert_array_equal(lstm.get_weights()[2], [0, 0, 1, 1, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ot.layers.LSTM(0), "LSTMCell needs a positive number of units, not 0"),
        (lambda: ot.layers.GRU(2, dropout=1.0), r"dropout lies in \[0, 1\), not at 1.0"),
        (lambda: ot.layers.RNN(ot.layers.Dense(2)), "has no state_size"),
        (lambda: ot.layers.StackedRNNCells([]), "needs at least one cell"),
        (lambda: ot.layers.Bidirectional(ot.layers.Dense(2)), "takes a recurrent layer"),
        (
            lambda: ot.layers.Bidirectional(ot.layers.GRU(2), merge_mode="max"),
            "merge_mode is one of 'concat', .* not 'max'",
        ),
        (
            lambda: ot.layers.Bidirectional(ot.layers.GRU(2), backward_layer=ot.layers.GRU(2)),
            "one of layer and backward_layer has go_backwards=True",
        ),
        (lambda: ot.layers.TimeDistributed(3), "TimeDistributed takes a layer, not 3"),
    ],
)
def test_arguments_that_make_no_layer(make: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: ot.layers.LSTM(2)(x[0]), r"needs inputs of shape \(batch, time, features\)"),
        (lambda x: ot.layers.GRU(2)(x, mask=x), r"takes a mask of shape \(batch, time\)"),
        (
            lambda x: ot.layers.LSTM(3)(x, initial_state=[x[:, 0]]),
            "has 2 states, but initial_state has 1",
        ),
        (
            lambda x: ot.layers.TimeDistributed(ot.layers.Dense(2))(x[0]),
            r"needs inputs of shape \(batch, time, ...\)",
        ),
    ],
)
def test_inputs_that_do_not_fit(call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call(ot.ops.zeros((2, 4, 3)))


def test_cells_are_named_by_their_kind_as_in_keras() -> None:
    x = ot.Input((4, 3))
    y = ot.layers.LSTM(2, return_sequences=True, name="first")(x)
    y = ot.layers.LSTM(2, return_sequences=True, name="second")(y)
    y = ot.layers.Bidirectional(ot.layers.GRU(2, name="gru"), name="both")(y)
    kernels = [v.path for v in ot.Model(x, y).weights if v.name == "kernel"]
    assert kernels == [
        "first/lstm_cell/kernel",
        "second/lstm_cell/kernel",
        "both/forward_gru/gru_cell/kernel",
        "both/backward_gru/gru_cell/kernel",
    ]


def test_convolutional_dropout_has_one_mask_per_gate_for_all_steps() -> None:
    layer = ot.layers.ConvLSTM2D(3, 2, dropout=0.5, recurrent_dropout=0.3, seed=1)
    x = np.ones((2, 3, 5, 4, 2), np.float32)
    layer(x)
    drawn = layer.cell.seed_generator.state.numpy()
    written_out = layer(x, training=True).numpy()
    layer.cell.seed_generator.state.assign(drawn)
    # In a Scan, where the length is not known.
    step = ot.function(
        lambda x: layer(x, training=True),
        input_signature=[ot.TensorSpec((2, None, 5, 4, 2), "float32")],
        fallback="error",
    )
    np.testing.assert_allclose(step(x).numpy(), written_out, rtol=1e-5, atol=1e-6)
    assert np.abs(written_out - layer(x).numpy()).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filters": 0}, "ConvLSTM2D needs a positive number of filters, not 0"),
        ({"strides": 2, "dilation_rate": 2}, "ConvLSTM2D takes strides or dilations, not both"),
        ({"dropout": 1.0}, r"ConvLSTM2D: dropout lies in \[0, 1\), not at 1\.0"),
    ],
)
def test_what_convolutional_layers_refuse(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ot.layers.ConvLSTM2D(**{"filters": 2, "kernel_size": 2, **options})


def test_convolutional_layers_need_known_sizes() -> None:
    with pytest.raises(ot.errors.ShapeError, match="known sizes but for batch and time, not"):
        ot.layers.ConvLSTM2D(2, 2)(ot.Input((None, None, 4, 2)))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
@pytest.mark.parametrize("masked", [False, True])
def test_states_are_of_one_batch_size(kind: str, masked: bool) -> None:
    """Those of four sequences would be broadcast for one."""
    layer = getattr(ot.layers, kind)(3, stateful=True)
    mask = np.ones((4, 5), bool) if masked else None

    def call(x: Any) -> Any:
        return layer(x, mask=None if mask is None else mask[: len(x)])

    x = np.ones((4, 5, 2), np.float32)
    compiled = ot.function(call, fallback="error")
    compiled(x)
    before = [state.numpy() for state in layer.states]
    for size in (1, 3, 1):
        for run in (call, compiled):
            with pytest.raises(
                ShapeError, match=r"(?s)keeps the states of 4 .*drop_remainder.*test_recurrent"
            ):
                run(x[:size])
    for state, kept in zip(layer.states, before, strict=True):
        np.testing.assert_array_equal(state.numpy(), kept)
    compiled(x)
