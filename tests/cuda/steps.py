"""Training steps of all kinds, to be compiled for CUDA."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import onnxtape as ot

ROOT = Path(__file__).parent.parent.parent
WORKLOADS = sorted(
    path.stem for path in (ROOT / "benchmarks/workloads").glob("*.py") if path.stem[0] != "_"
)
CLASSES = 3


@dataclass(frozen=True)
class Step:
    """A function to be traced, and a batch for it."""

    function: Callable[..., Any]
    batch: Sequence[Any]


#: Builds a step anew: its variables too.
Make = Callable[[], Step]


def images(*sizes: int, channels: int = 4, batch: int = 4) -> Any:
    return np.random.default_rng(0).standard_normal((batch, *sizes, channels)).astype(np.float32)


def rows(width: int = 6, batch: int = 8) -> Any:
    return np.random.default_rng(1).standard_normal((batch, width)).astype(np.float32)


def words(length: int = 5, batch: int = 8) -> Any:
    return np.random.default_rng(2).integers(1, 20, (batch, length))


def trained(
    x: Any,
    layers: Callable[[], list[Any]],
    optimizer: Callable[[], Any] = lambda: ot.optimizers.SGD(0.1),
    metrics: Callable[[], list[Any]] = list,
    policy: str | None = None,
) -> Make:
    """A classifier of these layers, which Flatten and Dense follow."""

    def make() -> Step:
        ot.set_seed(0)
        with dtype_policy(policy):
            tail = [ot.layers.Flatten(), ot.layers.Dense(CLASSES)]
            model = ot.Sequential([ot.Input(x.shape[1:], dtype=x.dtype.name), *layers(), *tail])
            rule, found = optimizer(), metrics()
        loss_of = ot.losses.SparseCategoricalCrossentropy(from_logits=True)
        scaled = hasattr(rule, "scale_loss")

        def step(x: Any, y: Any) -> Any:
            with ot.GradientTape() as tape:
                logits = ot.ops.cast(model(x, training=True), "float32")
                loss = loss_of(y, logits)
                target = rule.scale_loss(loss) if scaled else loss
            weights = model.trainable_variables
            rule.apply(tape.gradient(target, weights), weights)
            for metric in found:
                metric.update_state(y, ot.ops.softmax(logits))
            return loss, [metric.result() for metric in found]

        labels = np.random.default_rng(3).integers(0, CLASSES, len(x))
        return Step(step, [x, labels])

    return make


@contextmanager
def dtype_policy(policy: str | None) -> Iterator[None]:
    if policy is not None:
        ot.set_dtype_policy(policy)
    try:
        yield
    finally:
        ot.set_dtype_policy("float32")


def drawn(draw: Callable[[], Any]) -> Make:
    """Random numbers, of the global stream."""

    def make() -> Step:
        ot.set_seed(7)
        return Step(draw, [])

    return make


def function_of(function: Callable[[Any], list[Any]], x: Any) -> Make:
    """Values, and their gradient."""

    def step(x: Any) -> Any:
        with ot.GradientTape() as tape:
            tape.watch(x)
            made = function(x)
            target = sum(ot.ops.sum(value * value) for value in made)
        return made, tape.gradient(target, x)

    return lambda: Step(step, [x])


def measured(metric: Callable[[], Any], labels: Any, predicted: Any) -> Make:
    """A metric that is updated."""

    def make() -> Step:
        found = metric()

        def step(y: Any, p: Any) -> Any:
            found.update_state(y, p)
            return found.result()

        return Step(step, [labels, predicted])

    return make


def workload(name: str) -> Make:
    """The step of a benchmark, on a few rows of its batches."""

    def make() -> Step:
        from benchmarks import workloads

        ot.set_seed(0)
        chosen, caught = workloads.load(name), []
        problem = chosen.problem()
        batches = [tuple(array[:16] for array in problem.batches[0])]
        real = ot.function

        def catch(function: Callable[..., Any], **options: Any) -> Any:
            caught.append(function)
            return real(function, **options)

        ot.function = catch  # type: ignore[assignment]
        try:
            chosen.builders["onnxtape"](workloads.Problem(problem.weights, batches))
        finally:
            ot.function = real  # type: ignore[assignment]
        taken = next(workloads.Problem([], batches).endless(np.int64))
        return Step(caught[-1], list(taken))

    return make


L, R, M = ot.layers, ot.optimizers, ot.metrics
PICTURES, WORDS, ROWS = images(8, 8), words(), rows()
SEQUENCE = np.random.default_rng(4).standard_normal((4, 40, 5)).astype(np.float32)
BINARY = np.random.default_rng(5).integers(0, 2, (8, 1)).astype(np.float32)
CHANCES = np.random.default_rng(6).uniform(0, 1, (8, 1)).astype(np.float32)
HOT = np.eye(CLASSES, dtype=np.float32)[np.arange(8) % CLASSES]


def dense() -> list[Any]:
    return [L.Dense(5, activation="relu")]


def picture(*layers: Callable[[], Any]) -> Make:
    return trained(PICTURES, lambda: [layer() for layer in layers])


def mixed(policy: str) -> dict[str, Make]:
    scaled = lambda: R.LossScaleOptimizer(R.Adam(1e-2))  # noqa: E731
    optimizer = scaled if policy == "mixed_float16" else (lambda: R.Adam(1e-2))
    return {
        f"{policy}: convolutions": trained(
            PICTURES,
            lambda: [
                L.Conv2D(4, 3, padding="same"),
                L.BatchNormalization(),
                L.Activation("gelu"),
                L.MaxPooling2D(),
                L.Conv2DTranspose(4, 3, strides=2, padding="same"),
                L.AveragePooling2D(2),
            ],
            optimizer,
            policy=policy,
        ),
        f"{policy}: attention": trained(
            WORDS,
            lambda: [
                L.Embedding(20, 8),
                L.LayerNormalization(),
                Attention(),
                L.Dropout(0.1),
                L.Dense(8, activation="silu"),
            ],
            optimizer,
            policy=policy,
        ),
        f"{policy}: recurrent": trained(SEQUENCE, lambda: [L.LSTM(6)], optimizer, policy=policy),
    }


class Attention(L.Layer):
    """A sequence that attends to itself, causally."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = L.MultiHeadAttention(2, 4)

    def call(self, x: Any) -> Any:
        return self.inner(x, x, use_causal_mask=True)


STEPS: dict[str, Make] = {
    **{f"benchmark: {name}": workload(name) for name in WORKLOADS},
    **{
        f"optimizer: {name}": trained(ROWS, dense, lambda name=name: getattr(R, name)())
        for name in (
            *("SGD", "RMSprop", "Adagrad", "Adadelta", "Adam", "AdamW", "Adamax", "Nadam", "Ftrl"),
            *("Lion", "Lamb", "Adafactor", "Muon"),
        )
    },
    "momentum": trained(ROWS, dense, lambda: R.SGD(0.1, momentum=0.9, nesterov=True)),
    "clipping": trained(ROWS, dense, lambda: R.Adam(global_clipnorm=0.1)),
    "averages": trained(ROWS, dense, lambda: R.Adam(use_ema=True)),
    "accumulated": trained(ROWS, dense, lambda: R.Adam(gradient_accumulation_steps=2)),
    "schedule": trained(ROWS, dense, lambda: R.Adam(R.schedules.CosineDecay(0.1, 100))),
    "loss scale": trained(ROWS, dense, lambda: R.LossScaleOptimizer(R.Adam())),
    "convolution": picture(lambda: L.Conv2D(5, 3), lambda: L.Conv2D(5, 3, strides=2)),
    "convolution, same": picture(
        lambda: L.Conv2D(5, 4, padding="same"),
        lambda: L.Conv2D(5, 3, strides=2, padding="same"),
        lambda: L.Conv2D(5, 3, dilation_rate=2, padding="same"),
    ),
    "convolution, transposed": picture(
        lambda: L.Conv2DTranspose(5, 4, strides=2, padding="same"),
        lambda: L.Conv2DTranspose(5, 3, strides=2, padding="same"),
    ),
    "convolution, by channel": picture(
        lambda: L.DepthwiseConv2D(3, padding="same", strides=2), lambda: L.SeparableConv2D(5, 3)
    ),
    "convolution, 1 axis": trained(SEQUENCE, lambda: [L.Conv1D(4, 3, padding="causal")]),
    "convolution, 3 axes": trained(images(4, 4, 4), lambda: [L.Conv3D(3, 2, padding="same")]),
    "pooling": picture(
        lambda: L.MaxPooling2D(3, strides=2, padding="same"),
        lambda: L.AveragePooling2D(2, padding="same"),
    ),
    "pooling, global": picture(lambda: L.Conv2D(3, 1), lambda: L.GlobalMaxPooling2D()),
    "sizes": picture(
        lambda: L.UpSampling2D(2, interpolation="bilinear"),
        lambda: L.ZeroPadding2D(1),
        lambda: L.Cropping2D(1),
    ),
    "batch normalization": picture(lambda: L.Conv2D(5, 3), lambda: L.BatchNormalization()),
    "layer normalization": trained(ROWS, lambda: [L.Dense(6), L.LayerNormalization()]),
    "group normalization": picture(lambda: L.Conv2D(4, 3), lambda: L.GroupNormalization(2)),
    "other normalization": trained(
        ROWS, lambda: [L.Dense(6), L.RMSNormalization(), L.UnitNormalization()]
    ),
    **{
        f"recurrent: {name}": trained(SEQUENCE, lambda layer=layer: [layer()])
        for name, layer in {
            "LSTM": lambda: L.LSTM(6),
            "GRU": lambda: L.GRU(6),
            "GRU, reset before": lambda: L.GRU(6, reset_after=False),
            "SimpleRNN": lambda: L.SimpleRNN(6),
            "Bidirectional": lambda: L.Bidirectional(L.LSTM(4, return_sequences=True)),
        }.items()
    },
    "embedding": trained(WORDS, lambda: [L.Embedding(20, 4)], lambda: R.Adam()),
    "embedding, a large table": trained(
        WORDS, lambda: [L.Embedding(5000, 64)], lambda: R.SGD(0.1, momentum=0.9)
    ),
    # Larger than `scattered.LARGE`: only its rows are added to the averages.
    **{
        f"embedding, by its rows: {name}": trained(
            WORDS, lambda: [L.Embedding(20_000, 64)], lambda name=name: getattr(R, name)(0.1)
        )
        for name in ("Adam", "AdamW", "Nadam", "Lamb")
    },
    "embedding, masked": trained(WORDS, lambda: [L.Embedding(20, 4, mask_zero=True), L.LSTM(4)]),
    "attention": trained(WORDS, lambda: [L.Embedding(20, 8), Attention()]),
    "dropout": trained(ROWS, lambda: [L.Dense(7), L.Dropout(0.5)]),
    "noise": trained(ROWS, lambda: [L.GaussianNoise(0.5), L.Dense(7), L.AlphaDropout(0.1)]),
    "dropout of maps": picture(lambda: L.SpatialDropout2D(0.5)),
    "activations": trained(
        ROWS,
        lambda: [
            L.Activation(name)
            for name in (
                *("relu", "gelu", "silu", "elu", "selu", "celu", "softplus", "softsign", "mish"),
                *("hard_sigmoid", "hard_silu", "leaky_relu", "log_softmax", "tanh"),
            )
        ],
    ),
    "functions": function_of(
        lambda x: [
            getattr(ot.ops, name)(0.9 * ot.ops.sin(x))
            for name in ("arccos", "arcsin", "arctan", "arcsinh", "arctanh", "sinh", "cosh", "tan")
        ],
        ROWS,
    ),
    "folded": function_of(lambda x: [ot.ops.fold(ot.ops.reshape(x, (2, 4, 6)), (3, 4), 2)], ROWS),
    "integers": lambda: Step(
        lambda x: [ot.ops.argmax(x, axis=1), ot.ops.pad(x, [[1, 0], [0, 2]])], [WORDS]
    ),
    "uniform numbers": drawn(lambda: ot.random.uniform((1001,))),
    "normal numbers": drawn(lambda: ot.random.normal((1001,))),
    "truncated numbers": drawn(lambda: ot.random.truncated_normal((501,))),
    "whole numbers": drawn(lambda: ot.random.randint((501,), 0, 1000)),
    "drawn classes": drawn(lambda: ot.random.categorical(HOT, 50)),
    "shuffled": drawn(lambda: ot.random.shuffle(ROWS)),
    **{
        f"metric: {name}": measured(getattr(M, name), labels, predicted)
        for labels, predicted, names in (
            (np.arange(8) % CLASSES, HOT[::-1].copy(), ["SparseCategoricalAccuracy"]),
            (HOT, HOT[::-1].copy(), ["CategoricalAccuracy", "F1Score", "CosineSimilarity"]),
            (
                BINARY,
                CHANCES,
                ["AUC", "BinaryAccuracy", "Precision", "Recall", "MeanSquaredError", "R2Score"],
            ),
        )
        for name in names
    },
    "metric: IoU": measured(lambda: M.MeanIoU(2), BINARY, np.round(CHANCES)),
    "metrics beside training": trained(
        ROWS, dense, metrics=lambda: [M.SparseCategoricalAccuracy()]
    ),
    **mixed("mixed_float16"),
    **mixed("mixed_bfloat16"),
}
