"""A language model: embedding 64, LSTM 128, softmax over 96 characters; 64 steps, batch 32, Adam.

Half of the arithmetic is one step after the other, in products too small to keep two cores busy.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.jax_steps import adam, cross_entropy, donated
from benchmarks.steps import keras_step, onnxtape_step, torch_step
from benchmarks.workloads import Problem, Step, Workload

BATCH, STEPS = 32, 64
VOCABULARY, EMBEDDING, UNITS = 96, 64, 128
LEARNING_RATE = 1e-3
EPSILON = 1e-7


def problem() -> Problem:
    """Uniform weights, and batches of characters each of which tells much about the next."""
    random = np.random.default_rng(0)

    def uniform(rows: int, columns: int) -> NDArray[np.float32]:
        limit = np.sqrt(6 / (rows + columns))
        return random.uniform(-limit, limit, (rows, columns)).astype(np.float32)

    forget_one = np.zeros((4, UNITS), np.float32)
    forget_one[1] = 1
    weights = [
        uniform(VOCABULARY, EMBEDDING),
        uniform(EMBEDDING, 4 * UNITS),
        uniform(UNITS, 4 * UNITS),
        forget_one.reshape(-1),
        uniform(UNITS, VOCABULARY),
        np.zeros(VOCABULARY, np.float32),
    ]
    successors = random.integers(0, VOCABULARY, (VOCABULARY, 4))
    batches = []
    for _ in range(32):
        text = np.empty((BATCH, STEPS + 1), np.int64)
        text[:, 0] = random.integers(0, VOCABULARY, BATCH)
        for t in range(STEPS):
            text[:, t + 1] = successors[text[:, t], random.integers(0, 4, BATCH)]
        batches.append((np.ascontiguousarray(text[:, :-1]), np.ascontiguousarray(text[:, 1:])))
    return Problem(weights, batches)


def _model(keras: Any) -> Any:
    """The model in `keras`, which may be Keras or onnxtape: they are spelled alike."""
    return keras.Sequential(
        [
            keras.Input((STEPS,), dtype="int64"),
            keras.layers.Embedding(VOCABULARY, EMBEDDING),
            keras.layers.LSTM(UNITS, return_sequences=True),
            keras.layers.Dense(VOCABULARY),
        ]
    )


def build_onnxtape(problem: Problem) -> Step:
    """`onnxtape.function` around a `GradientTape`."""
    import onnxtape as ot

    batches = problem.endless(np.int64)
    model = _model(ot)
    model.set_weights(problem.weights)
    optimizer = ot.optimizers.Adam(LEARNING_RATE, epsilon=EPSILON)
    return onnxtape_step(model, optimizer, batches)


def build_torch(problem: Problem) -> Step:
    """PyTorch's fused `nn.LSTM` and fused Adam; its second bias vector is zero and stays so."""
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(VOCABULARY, EMBEDDING)
            self.lstm = nn.LSTM(EMBEDDING, UNITS, batch_first=True)
            self.head = nn.Linear(UNITS, VOCABULARY)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.head(self.lstm(self.embedding(x))[0])
            return logits

    batches = problem.endless(np.int64)
    model = Model()
    embedding, kernel, recurrent, bias, head, head_bias = problem.weights
    # PyTorch has Keras's order of gates.
    values = [embedding, kernel.T, recurrent.T, bias, np.zeros_like(bias), head.T, head_bias]
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.copy_(torch.from_numpy(value.copy()))
    model.lstm.bias_hh_l0.requires_grad_(False)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, LEARNING_RATE, eps=EPSILON, fused=True)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(model(x).view(-1, VOCABULARY), y.view(-1))

    return torch_step(loss_of, optimizer, batches)


def build_jax(problem: Problem) -> Step:
    """`jax.jit` of the whole step, `lax.scan` over time, donated weights and optimizer state."""
    import jax
    import jax.numpy as jnp

    batches = problem.endless(np.int32)

    def forward(weights: Any, x: Any, y: Any) -> Any:
        embedding, kernel, recurrent, bias, head, head_bias = weights
        inputs = jnp.swapaxes(embedding[x], 0, 1) @ kernel + bias

        def one(states: Any, zx: Any) -> Any:
            h, c = states
            i, f, new, o = jnp.split(zx + h @ recurrent, 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(new)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zeros = jnp.zeros((x.shape[0], UNITS), inputs.dtype)
        _, outputs = jax.lax.scan(one, (zeros, zeros), inputs)
        return cross_entropy(jnp.swapaxes(outputs, 0, 1) @ head + head_bias, y)

    return donated(forward, adam(LEARNING_RATE, EPSILON), problem.weights, batches)


def build_tensorflow(problem: Problem) -> Step:
    """Keras layers in a `tf.function`."""
    import keras

    batches = problem.endless(np.int64)
    model = _model(keras)
    model.set_weights(problem.weights)
    optimizer = keras.optimizers.Adam(LEARNING_RATE, epsilon=EPSILON)
    return keras_step(model, optimizer, batches)


WORKLOAD = Workload(
    title=(
        f"language model: embedding {EMBEDDING}, LSTM {UNITS}, vocabulary {VOCABULARY}, "
        f"{STEPS} steps, batch {BATCH}, Adam"
    ),
    steps=50,
    problem=problem,
    builders={
        "onnxtape": build_onnxtape,
        "torch": build_torch,
        "jax": build_jax,
        "tensorflow": build_tensorflow,
    },
)
