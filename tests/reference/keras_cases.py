"""The same small programs for Keras and for onnxtape, whose names and numbers are to be equal.

Every function takes the module `k`, which is `keras` or `onnxtape`, and returns arrays by name.
`make_keras_reference.py` stores what Keras makes of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

ACTIVATIONS = [
    "celu", "elu", "exponential", "gelu", "hard_sigmoid", "hard_silu", "hard_swish", "leaky_relu",
    "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid", "silu",
    "softmax", "softplus", "softsign", "swish", "tanh",
]  # fmt: skip


def array(shape: tuple[int, ...], seed: int, low: float = -2.0, high: float = 2.0) -> Any:
    """float32 numbers."""
    return np.random.default_rng((seed, *shape)).uniform(low, high, shape).astype(np.float32)


def numpy(tensor: Any) -> NDArray[Any]:
    return np.array(tensor)


def activations(k: Any) -> Arrays:
    """By name, through a layer."""
    x = np.concatenate([array((3, 8), 0, -6.0, 6.0), np.zeros((1, 8), np.float32)])
    return {name: numpy(k.layers.Activation(name)(x)) for name in ACTIVATIONS}


def layers(k: Any) -> Arrays:
    """Outputs of Dense in its variants, and of the layers without weights."""
    kernel, bias = array((4, 3), 1), array((3,), 2)
    found: Arrays = {}
    for name, shape, options in (
        ("dense", (5, 4), {}),
        ("dense_relu", (5, 4), {"activation": "relu"}),
        ("dense_softmax", (5, 4), {"activation": "softmax"}),
        ("dense_no_bias", (5, 4), {"use_bias": False}),
        ("dense_rank_3", (2, 5, 4), {"activation": "tanh"}),
        ("dense_rank_3_no_bias", (2, 5, 4), {"use_bias": False}),
        ("dense_rank_4", (2, 1, 5, 4), {}),
    ):
        layer = k.layers.Dense(3, **options)
        layer.build((None, *shape[1:]))
        layer.set_weights([kernel, bias][: 1 + options.get("use_bias", True)])
        found[name] = numpy(layer(array(shape, 3)))
    x = array((2, 3, 4), 4)
    found["flatten"] = numpy(k.layers.Flatten()(x))
    found["flatten_rank_1"] = numpy(k.layers.Flatten()(x[0, 0]))
    found["flatten_rank_2"] = numpy(k.layers.Flatten()(x[0]))
    found["reshape"] = numpy(k.layers.Reshape((2, 6))(x))
    found["reshape_inferred"] = numpy(k.layers.Reshape((-1, 2))(x))
    found["rescaling"] = numpy(k.layers.Rescaling(1 / 255, offset=-0.5)(x))
    found["rescaling_integers"] = numpy(k.layers.Rescaling(0.5)((x * 10).astype("uint8")))
    found["identity"] = numpy(k.layers.Identity()(x))
    found["dropout_at_rest"] = numpy(k.layers.Dropout(0.5)(x))
    found["dropout_of_all"] = numpy(k.layers.Dropout(1.0)(x, training=True))
    return found


REDUCTIONS = ["sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none"]


def losses(k: Any) -> Arrays:
    """Every loss with every reduction, with and without weights."""
    logits, deep = array((6, 4), 5), array((6, 3, 4), 6)
    exp = np.exp(logits)
    p = exp / exp.sum(-1, keepdims=True)
    labels = np.array([0, 3, 1, 1, 2, 0])
    hot = np.eye(4, dtype=np.float32)[labels]
    soft = 0.7 * hot + 0.3 * array((6, 4), 7, 0.0, 1.0)
    bits = (array((6, 4), 8) > 0).astype(np.float32)
    unit = array((6, 4), 9, 0.05, 0.95)
    weights = array((6,), 10, 0.2, 2.0)
    deep_weights = array((6, 3), 11, 0.2, 2.0)
    deep_labels = np.random.default_rng(12).integers(0, 4, (6, 3))
    of = k.losses
    cases: dict[str, tuple[Callable[..., Any], Any, Any, list[Any]]] = {
        "mse": (of.MeanSquaredError, bits, logits, [weights, weights[:, None]]),
        "mse_column": (of.MeanSquaredError, bits[:, 0], logits[:, :1], [weights]),
        "mse_column_true": (of.MeanSquaredError, bits[:, :1], logits[:, 0], []),
        "mse_deep": (of.MeanSquaredError, deep, deep * 0.5, [deep_weights, weights[:, None]]),
        "mae": (of.MeanAbsoluteError, bits, logits, [weights, weights[:, None]]),
        "mae_integers": (of.MeanAbsoluteError, labels, logits[:, 0], []),
        "sparse": (of.SparseCategoricalCrossentropy, labels, p, [weights]),
        "sparse_column": (of.SparseCategoricalCrossentropy, labels[:, None], p, [weights]),
        "sparse_logits": (_with(of.SparseCategoricalCrossentropy, from_logits=True), labels,
                          logits, [weights, weights[:, None]]),
        "sparse_deep": (_with(of.SparseCategoricalCrossentropy, from_logits=True), deep_labels,
                        deep, [deep_weights, weights[:, None]]),
        "categorical": (of.CategoricalCrossentropy, soft, p, [weights]),
        "categorical_logits": (_with(of.CategoricalCrossentropy, from_logits=True), soft, logits,
                               [weights]),
        "categorical_smooth": (_with(of.CategoricalCrossentropy, label_smoothing=0.2), hot, p,
                               [weights]),
        "binary": (of.BinaryCrossentropy, bits, unit, [weights]),
        "binary_logits": (_with(of.BinaryCrossentropy, from_logits=True), bits, logits * 8,
                          [weights]),
        "binary_smooth": (_with(of.BinaryCrossentropy, label_smoothing=0.3), bits, unit,
                          [weights]),
        "binary_column": (of.BinaryCrossentropy, bits[:, 0], unit[:, :1], [weights]),
    }  # fmt: skip
    found: Arrays = {}
    for (name, (make, true, pred, weightings)), reduction in itertools.product(
        cases.items(), REDUCTIONS
    ):
        nothing = [np.zeros_like(weighting) for weighting in weightings[:1]]
        for index, weighting in enumerate([None, *weightings, *nothing]):
            loss = make(reduction=reduction)
            found[f"{name}.{reduction}.{index}"] = numpy(loss(true, pred, sample_weight=weighting))
    return found


def _with(make: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    return lambda **more: make(**options, **more)


def metrics(k: Any) -> Arrays:
    """Results after each of several updates, and the variables at the end."""
    found: Arrays = {}
    logits, labels = array((6, 4), 13), np.array([0, 3, 1, 1, 2, 0])
    weights = array((6,), 14, 0.0, 2.0)
    deep, deep_labels = array((6, 3, 4), 15), np.random.default_rng(16).integers(0, 4, (6, 3))
    mean, accuracy = k.metrics.Mean, k.metrics.SparseCategoricalAccuracy
    cases: dict[str, tuple[Callable[..., Any], list[tuple[Any, ...]]]] = {
        "mean": (mean, [(np.float32(2.5),), (logits[:, 0],), (np.float32(-1.0),)]),
        "mean_integers": (mean, [(labels,), (labels[:2],)]),
        "mean_rank_2": (mean, [(logits,), (logits[:2, :3],)]),
        "mean_weighted": (mean, [(logits[:, 0], weights), (logits[:2, 0], weights[2:4]),
                                 (np.float32(3.0), np.float32(0.5))]),
        "mean_weighted_rows": (mean, [(logits, weights), (logits[:, :3], weights)]),
        "mean_weighted_columns": (mean, [(logits, weights[:, None])]),
        "mean_weighted_all": (mean, [(logits, np.abs(logits)),
                                     (logits[:2, :3], logits[1:3, 1:] ** 2)]),
        "mean_weightless": (mean, [(logits[:, 0], np.zeros_like(weights))]),
        "accuracy": (accuracy, [(labels, logits), (labels[:2], logits[2:4])]),
        "accuracy_column": (accuracy, [(labels[:, None], logits), (labels[::-1, None], logits)]),
        "accuracy_weighted": (accuracy, [(labels, logits, weights), (labels[1:], logits[:-1],
                                                                      weights[1:])]),
        "accuracy_deep": (accuracy, [(deep_labels, deep), (deep_labels[:, :2], deep[:, 1:])]),
        "accuracy_deep_weighted": (accuracy, [(deep_labels, deep, weights)]),
    }  # fmt: skip
    for name, (make, updates) in cases.items():
        metric = make()
        results = [numpy(metric.result())]
        for update in updates:
            metric.update_state(*update)
            results.append(numpy(metric.result()))
        found[name] = np.array(results)
        found[f"{name}.variables"] = np.array([numpy(v) for v in metric.variables])
    return found


def optimizers(k: Any) -> Arrays:
    """Variables after each of several steps, with a learning rate that changes in between."""
    of = k.optimizers
    found: Arrays = {}
    cases: dict[str, Callable[[], Any]] = {
        "sgd": lambda: of.SGD(),
        "sgd_rate": lambda: of.SGD(0.5),
        "momentum": lambda: of.SGD(0.1, momentum=0.9),
        "nesterov": lambda: of.SGD(0.1, momentum=0.9, nesterov=True),
        "adam": lambda: of.Adam(),
        "adam_options": lambda: of.Adam(0.05, beta_1=0.8, beta_2=0.95, epsilon=1e-3),
        "adam_without_momentum": lambda: of.Adam(0.05, beta_1=0.0),
    }
    for name, make in cases.items():
        optimizer = make()
        variables = [k.Variable(array((3, 2), 17)), k.Variable(array((2,), 18))]
        for step in range(5):
            if step == 3:
                optimizer.learning_rate = 0.02
            gradients = [array((3, 2), 19 + step), array((2,), 29 + step, -1e-3, 1e-3)]
            optimizer.apply([k.ops.convert_to_tensor(g) for g in gradients], variables)
            found[f"{name}.{step}"] = np.concatenate([numpy(v).ravel() for v in variables])
        found[f"{name}.iterations"] = numpy(optimizer.iterations)
    return found


def models(k: Any) -> Arrays:
    """The order and the names of layers and weights of models."""
    found: Arrays = {}
    dense = k.layers.Dense

    def record(name: str, model: Any) -> None:
        found[f"{name}.layers"] = np.array([layer.name for layer in model.layers])
        found[f"{name}.weights"] = np.array([w.path for w in model.weights])
        found[f"{name}.trainable"] = np.array([w.path for w in model.trainable_weights])
        found[f"{name}.frozen"] = np.array([w.path for w in model.non_trainable_weights])
        found[f"{name}.shapes"] = np.array([str(tuple(w.shape)) for w in model.weights])

    record("sequential", k.Sequential(
        [k.Input((4,), name="x"), dense(3, name="first"), k.layers.Dropout(0.1, name="drop"),
         dense(2, name="second")], name="stack"))  # fmt: skip

    for built in (False, True):
        inside = k.Sequential(name="inside")
        if built:
            inside.add(k.Input((4,), name="x"))
        inside.add(dense(3, name="third"))
        outside = [k.Input((4,), name="x"), inside, dense(2, name="fourth")]
        record(f"sequential_inside_{built}", k.Sequential(outside, name="outside"))

    for seed in range(12):
        record(f"random_{seed}", _random_model(k, seed))

    shared = dense(4, name="shared")
    x, y = k.Input((4,), name="x"), k.Input((4,), name="y")
    record("shared", k.Model([x, y], [shared(dense(4, name="before")(y)), shared(x)]))

    inner_x = k.Input((4,), name="inner_x")
    inner = k.Model(inner_x, dense(4, name="inner_dense")(inner_x), name="inner")
    outer_x = k.Input((4,), name="outer_x")
    late, early = dense(2, name="late"), dense(4, name="early")
    record("nested", k.Model(outer_x, late(inner(early(outer_x)))))
    inner.trainable = False
    record("nested_frozen", k.Model(outer_x, late(inner(early(outer_x)))))

    class Mixed(k.layers.Layer):  # type: ignore[misc, name-defined]
        """Weights of both kinds, created in turns, and layers in attributes, lists and dicts."""

        def __init__(self) -> None:
            super().__init__(name="mixed")
            self.blocks = [dense(2, name="block_0"), dense(3, name="block_1")]
            self.heads = {"b": dense(1, name="head_b"), "a": dense(2, name="head_a")}

        def build(self, input_shape: Any) -> None:
            def weight(name: str, shape: tuple[int, ...], trainable: bool) -> Any:
                return self.add_weight(
                    shape=shape, initializer="ones", trainable=trainable, name=name
                )

            self.count = weight("count", (), False)
            self.scale = weight("scale", (4,), True)
            self.steps = weight("steps", (2,), False)
            self.shift = weight("shift", (4,), True)

        def call(self, x: Any) -> Any:
            x = x * self.scale + self.shift
            for block in self.blocks:
                x = block(x)
            return self.heads["a"](x) + self.heads["b"](x)

    class Subclassed(k.Model):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(name="subclassed")
            self.late = dense(2, name="late")
            self.mixed = Mixed()
            self.early = dense(4, name="early")
            self.stack = k.Sequential([dense(2, name="stacked")], name="stack")

        def call(self, x: Any) -> Any:
            return self.late(self.stack(self.mixed(self.early(x))))

    subclassed = Subclassed()
    subclassed(array((2, 3), 40))
    record("subclassed", subclassed)
    subclassed.mixed.trainable = False
    record("subclassed_frozen", subclassed)
    subclassed.trainable = False
    subclassed.trainable = True
    subclassed.early.trainable = False
    record("subclassed_thawed", subclassed)
    return found


def _random_model(k: Any, seed: int) -> Any:
    """A functional model of up to three inputs, ten layers and three outputs, some shared."""
    random = np.random.default_rng(seed)
    inputs = [k.Input((4,), name=f"in_{i}") for i in range(random.integers(1, 4))]
    stack = [k.layers.Dense(4, name=f"dense_{i}") for i in random.permutation(10)]
    tensors = list(inputs)
    for _ in range(10):
        layer = stack[random.integers(len(stack))]
        picked = [tensors[i] for i in random.integers(0, len(tensors), random.integers(1, 3))]
        tensors.append(layer(picked[0] if len(picked) == 1 else picked[0] + picked[1]))
    outputs = [
        tensors[i] for i in {len(tensors) - 1, *random.integers(len(inputs), len(tensors), 2)}
    ]
    return k.Model(inputs, outputs)


def summaries(k: Any) -> dict[str, str]:
    """The text that `summary` prints."""
    dense, dropout = k.layers.Dense, k.layers.Dropout
    built = k.Sequential(
        [k.Input((784,), name="x"), dense(64, activation="relu", name="hidden"),
         dropout(0.2, name="drop"), dense(10, name="logits")], name="classifier",
    )  # fmt: skip
    frozen = k.Sequential(
        [k.Input((8, 4), name="y"), dense(2, name="a"), k.layers.Flatten(name="f"),
         dense(1, name="b", use_bias=False)], name="frozen",
    )  # fmt: skip
    frozen.layers[0].trainable = False
    x = k.Input((300,), name="z")
    functional = k.Model(x, dense(5000, name="a_layer_whose_name_needs_more_than_one_line")(x),
                         name="functional")  # fmt: skip
    unbuilt = k.Sequential([dense(3, name="c"), dense(2, name="d")], name="unbuilt")
    found: dict[str, str] = {}
    for model in (built, frozen, functional, unbuilt):
        lines: list[str] = []
        model.summary(print_fn=lambda text, *_, lines=lines, **__: lines.append(text))
        found[model.name] = "\n".join(lines)
    return found
