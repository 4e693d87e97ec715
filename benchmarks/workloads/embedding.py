"""A classifier of bags of words: table 100000 x 64, mean over 20 words, 64, 10; batch 1024, Adam.

The arithmetic is small. Adam's averages, which decay in every row, whether its word came up or not,
pass 6.4 million numbers four times over the memory bus: the table, both averages and the gradient.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.jax_steps import adam, cross_entropy, donated
from benchmarks.steps import keras_step, onnxtape_step, torch_step
from benchmarks.workloads import Problem, Step, Workload

BATCH, LENGTH = 1024, 20
VOCABULARY, WIDTH, HIDDEN, CLASSES = 100_000, 64, 64, 10
LEARNING_RATE = 1e-3
EPSILON = 1e-7


def problem() -> Problem:
    """Uniform weights, and bags of which most words belong to one class, whose label they have."""
    random = np.random.default_rng(0)

    def uniform(rows: int, columns: int, limit: float) -> NDArray[np.float32]:
        return random.uniform(-limit, limit, (rows, columns)).astype(np.float32)

    weights = [
        uniform(VOCABULARY, WIDTH, 0.05),
        uniform(WIDTH, HIDDEN, np.sqrt(6 / (WIDTH + HIDDEN))),
        np.zeros(HIDDEN, np.float32),
        uniform(HIDDEN, CLASSES, np.sqrt(6 / (HIDDEN + CLASSES))),
        np.zeros(CLASSES, np.float32),
    ]
    batches = []
    for _ in range(32):
        y = random.integers(0, CLASSES, BATCH)
        of_class = random.integers(0, VOCABULARY // CLASSES, (BATCH, LENGTH)) * CLASSES + y[:, None]
        anything = random.integers(0, VOCABULARY, (BATCH, LENGTH))
        x = np.where(random.random((BATCH, LENGTH)) < 0.3, anything, of_class)
        batches.append((x, y))
    return Problem(weights, batches)


def _model(keras: Any, dtype: str) -> Any:
    """The model in `keras`, which may be Keras or onnxtape: they are spelled alike."""
    return keras.Sequential(
        [
            keras.Input((LENGTH,), dtype=dtype),
            keras.layers.Embedding(VOCABULARY, WIDTH),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(HIDDEN, activation="relu"),
            keras.layers.Dense(CLASSES),
        ]
    )


def build_onnxtape(problem: Problem) -> Step:
    """`onnxtape.function` around a `GradientTape`."""
    import onnxtape as ot

    batches = problem.endless(np.int64)
    model = _model(ot, "int64")
    model.set_weights(problem.weights)
    optimizer = ot.optimizers.Adam(LEARNING_RATE, epsilon=EPSILON)
    return onnxtape_step(model, optimizer, batches)


def build_torch(problem: Problem, compiled: bool = False) -> Step:
    """PyTorch's `nn.EmbeddingBag` with dense gradients and fused Adam."""
    import torch
    from torch import nn

    batches = problem.endless(np.int64)
    model = nn.Sequential(
        nn.EmbeddingBag(VOCABULARY, WIDTH, mode="mean"),
        nn.Linear(WIDTH, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, CLASSES),
    )
    table, *head = problem.weights
    values = [table, *(value.T for value in head)]
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.copy_(torch.from_numpy(value.copy()))
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, eps=EPSILON, fused=True)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(model(x), y)

    return torch_step(loss_of, optimizer, batches, compiled=compiled)


def build_torch_compile(problem: Problem) -> Step:
    """PyTorch with `torch.compile` around model and loss."""
    return build_torch(problem, compiled=True)


def build_jax(problem: Problem) -> Step:
    """`jax.jit` of the whole step with donated weights and optimizer state."""
    import jax
    import jax.numpy as jnp

    batches = problem.endless(np.int32)

    def forward(weights: Any, x: Any, y: Any) -> Any:
        table, kernel, bias, last_kernel, last_bias = weights
        pooled = jnp.take(table, x, axis=0).mean(axis=1)
        hidden = jax.nn.relu(pooled @ kernel + bias)
        return cross_entropy(hidden @ last_kernel + last_bias, y)

    return donated(forward, adam(LEARNING_RATE, EPSILON), problem.weights, batches)


def build_tensorflow(problem: Problem) -> Step:
    """Keras layers in a `tf.function`."""
    import keras

    batches = problem.endless(np.int32)
    model = _model(keras, "int32")
    model.set_weights(problem.weights)
    optimizer = keras.optimizers.Adam(LEARNING_RATE, epsilon=EPSILON)
    return keras_step(model, optimizer, batches, dense=True)


WORKLOAD = Workload(
    title="Embedding 100k x 64, 1024 bags of 20 words, Adam, float32",
    steps=20,
    problem=problem,
    builders={
        "onnxtape": build_onnxtape,
        "torch": build_torch,
        "torch-compile": build_torch_compile,
        "jax": build_jax,
        "tensorflow": build_tensorflow,
    },
)
