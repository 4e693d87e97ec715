"""A small GPT: 4 blocks of width 128 with 4 heads, 128 characters of 96, batch 8, AdamW, float32.

Attention with a causal mask, layer normalization before each half of a block, gelu, learned
positions, a head of its own. A tenth of a billion operations a step, in products of a moderate
size: what lies between the products counts as much.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.jax_steps import adamw, cross_entropy, donated
from benchmarks.jax_transformer import feed_forward, normalized, self_attention
from benchmarks.steps import keras_step, onnxtape_step, torch_step
from benchmarks.workloads import Problem, Step, Workload

LAYERS, WIDTH, HEADS, LENGTH, VOCABULARY, BATCH = 4, 128, 4, 128, 96, 8
SIZE = WIDTH // HEADS
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.01
EPSILON = 1e-7
LAYER_EPSILON = 1e-5
BLOCK = 16
"""How many weights a block has."""


def problem() -> Problem:
    """Normal weights, and batches of characters each of which tells much about the next."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> NDArray[np.float32]:
        return random.normal(0, 0.02, shape).astype(np.float32)

    def zeros(*shape: int) -> NDArray[np.float32]:
        return np.zeros(shape, np.float32)

    ones = np.ones(WIDTH, np.float32)
    weights = [normal(VOCABULARY, WIDTH), normal(LENGTH, WIDTH)]
    for _ in range(LAYERS):
        weights += [ones, zeros(WIDTH)]
        for _ in ("query", "key", "value"):
            weights += [normal(WIDTH, HEADS, SIZE), zeros(HEADS, SIZE)]
        weights += [normal(HEADS, SIZE, WIDTH), zeros(WIDTH)]
        weights += [ones, zeros(WIDTH)]
        weights += [normal(WIDTH, 4 * WIDTH), zeros(4 * WIDTH)]
        weights += [normal(4 * WIDTH, WIDTH), zeros(WIDTH)]
    weights += [ones, zeros(WIDTH), normal(WIDTH, VOCABULARY), zeros(VOCABULARY)]
    successors = random.integers(0, VOCABULARY, (VOCABULARY, 4))
    batches = []
    for _ in range(32):
        text = np.empty((BATCH, LENGTH + 1), np.int64)
        text[:, 0] = random.integers(0, VOCABULARY, BATCH)
        for t in range(LENGTH):
            text[:, t + 1] = successors[text[:, t], random.integers(0, 4, BATCH)]
        batches.append((np.ascontiguousarray(text[:, :-1]), np.ascontiguousarray(text[:, 1:])))
    return Problem(weights, batches)


def _model(keras: Any) -> Any:
    """The model in `keras`, which may be Keras or onnxtape: they are spelled alike."""
    layers = keras.layers

    class Embedded(layers.Layer):  # type: ignore[misc]
        """A vector for each character, and one for its place."""

        def __init__(self) -> None:
            super().__init__()
            self.characters = layers.Embedding(VOCABULARY, WIDTH)
            self.places = layers.Embedding(LENGTH, WIDTH)

        def call(self, inputs: Any) -> Any:
            places = keras.ops.arange(LENGTH, dtype="int32")
            return self.characters(inputs) + self.places(places)

    inputs = keras.Input((LENGTH,), dtype="int64")
    x = Embedded()(inputs)
    for _ in range(LAYERS):
        y = layers.LayerNormalization(epsilon=LAYER_EPSILON)(x)
        x = x + layers.MultiHeadAttention(HEADS, SIZE)(y, y, use_causal_mask=True)
        y = layers.LayerNormalization(epsilon=LAYER_EPSILON)(x)
        y = layers.Dense(4 * WIDTH, activation="gelu")(y)
        x = x + layers.Dense(WIDTH)(y)
    x = layers.LayerNormalization(epsilon=LAYER_EPSILON)(x)
    return keras.Model(inputs, layers.Dense(VOCABULARY)(x))


def build_onnxtape(problem: Problem) -> Step:
    """`onnxtape.function` around a `GradientTape`."""
    import onnxtape as ot

    batches = problem.endless(np.int64)
    model = _model(ot)
    model.set_weights(problem.weights)
    optimizer = ot.optimizers.AdamW(LEARNING_RATE, WEIGHT_DECAY, epsilon=EPSILON)
    return onnxtape_step(model, optimizer, batches)


def build_torch(problem: Problem, compiled: bool = False) -> Step:
    """PyTorch with `scaled_dot_product_attention`, one product for query, key and value, and fused
    AdamW; `compiled` wraps model and loss in `torch.compile`."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before = nn.LayerNorm(WIDTH, LAYER_EPSILON)
            self.project = nn.Linear(WIDTH, 3 * WIDTH)
            self.joined = nn.Linear(WIDTH, WIDTH)
            self.between = nn.LayerNorm(WIDTH, LAYER_EPSILON)
            self.wide = nn.Linear(WIDTH, 4 * WIDTH)
            self.narrow = nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            batch, length, _ = x.shape
            parts = self.project(self.before(x)).view(batch, length, 3, HEADS, SIZE)
            query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
            y = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            x = x + self.joined(y.transpose(1, 2).reshape(batch, length, WIDTH))
            wide = functional.gelu(self.wide(self.between(x)))
            result: torch.Tensor = x + self.narrow(wide)
            return result

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.characters = nn.Embedding(VOCABULARY, WIDTH)
            self.places = nn.Embedding(LENGTH, WIDTH)
            self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
            self.after = nn.LayerNorm(WIDTH, LAYER_EPSILON)
            self.head = nn.Linear(WIDTH, VOCABULARY)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.characters(x) + self.places.weight
            for block in self.blocks:
                x = block(x)
            logits: torch.Tensor = self.head(self.after(x))
            return logits

    batches = problem.endless(np.int64)
    model = Model()
    with torch.no_grad():
        values = _torch_weights(problem.weights)
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.copy_(torch.from_numpy(value.copy()))
    optimizer = torch.optim.AdamW(
        model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, eps=EPSILON, fused=True
    )

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(model(x).view(-1, VOCABULARY), y.view(-1))

    return torch_step(loss_of, optimizer, batches, compiled=compiled)


def _torch_weights(weights: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """The weights in PyTorch's order and layout, those of query, key and value joined."""
    values = weights[:2]
    for first in range(2, 2 + BLOCK * LAYERS, BLOCK):
        gamma, beta, *projections = weights[first : first + 8]
        kernels = [kernel.reshape(WIDTH, WIDTH).T for kernel in projections[::2]]
        biases = [bias.reshape(WIDTH) for bias in projections[1::2]]
        values += [gamma, beta, np.concatenate(kernels), np.concatenate(biases)]
        joined, bias, gamma, beta, wide, wide_bias, narrow, narrow_bias = weights[
            first + 8 : first + BLOCK
        ]
        values += [joined.reshape(WIDTH, WIDTH).T, bias, gamma, beta]
        values += [wide.T, wide_bias, narrow.T, narrow_bias]
    gamma, beta, head, bias = weights[-4:]
    return [*values, gamma, beta, head.T, bias]


def build_torch_compile(problem: Problem) -> Step:
    """PyTorch with `torch.compile`."""
    return build_torch(problem, compiled=True)


def build_jax(problem: Problem) -> Step:
    """`jax.jit` of the whole step with optax's AdamW, donated weights and optimizer state."""
    batches = problem.endless(np.int32)

    def forward(weights: Any, x: Any, y: Any) -> Any:
        characters, places, *rest = weights
        x = characters[x] + places
        for first in range(0, 12 * LAYERS, 12):
            block = rest[first : first + 12]
            before = normalized(x, *block[:2], epsilon=LAYER_EPSILON)
            x = x + self_attention(before, *block[2:6], heads=HEADS, is_causal=True)
            x = x + feed_forward(normalized(x, *block[6:8], epsilon=LAYER_EPSILON), *block[8:])
        gamma, beta, head, bias = rest[-4:]
        return cross_entropy(normalized(x, gamma, beta, epsilon=LAYER_EPSILON) @ head + bias, y)

    # PyTorch's matrices are transposed, but for the two tables.
    values = _torch_weights(problem.weights)
    weights = [v.T if i > 1 and v.ndim == 2 else v for i, v in enumerate(values)]
    optimizer = adamw(LEARNING_RATE, EPSILON, WEIGHT_DECAY)
    return donated(forward, optimizer, weights, batches)


def build_tensorflow(problem: Problem) -> Step:
    """Keras layers in a `tf.function`."""
    import keras

    batches = problem.endless(np.int64)
    model = _model(keras)
    model.set_weights(problem.weights)
    optimizer = keras.optimizers.AdamW(LEARNING_RATE, WEIGHT_DECAY, epsilon=EPSILON)
    return keras_step(model, optimizer, batches, dense=True)


WORKLOAD = Workload(
    title=(
        f"GPT: {LAYERS} layers, width {WIDTH}, {HEADS} heads, {LENGTH} characters of {VOCABULARY}, "
        f"batch {BATCH}, AdamW"
    ),
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
