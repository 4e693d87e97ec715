"""A U-Net for 32 x 32 images: group normalization, skip connections, a class for each pixel.

Three levels of 16, 32 and 64 channels, two normalized 3 x 3 convolutions each on the way down and
up, maxima of 2 x 2 going down, nearest neighbours going up; batch 32, Adam, float32.
"""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.jax_steps import adam, cross_entropy, donated
from benchmarks.steps import keras_step, onnxtape_step, torch_step
from benchmarks.workloads import Problem, Step, Workload

BATCH = 32
SIDE = 32
FILTERS = (16, 32, 64)
GROUPS = 4
CLASSES = 4
LEARNING_RATE = 1e-3
ADAM_EPSILON = 1e-7
EPSILON = 1e-3
#: Inputs and outputs of each convolution with a normalization, in the order of use.
UNITS = (
    (3, 16),
    (16, 16),
    (16, 32),
    (32, 32),
    (32, 64),
    (64, 64),
    (64 + 32, 32),
    (32, 32),
    (32 + 16, 16),
    (16, 16),
)


def problem() -> Problem:
    """He's weights; images in which each class has a colour, in squares with noise."""
    random = np.random.default_rng(0)
    weights: list[NDArray[np.float32]] = []
    for inputs, outputs in UNITS:
        kernel = np.sqrt(2 / (9 * inputs)) * random.standard_normal((3, 3, inputs, outputs))
        ones, zeros = np.ones(outputs, np.float32), np.zeros(outputs, np.float32)
        weights += [kernel.astype(np.float32), ones, zeros]
    head = np.sqrt(1 / FILTERS[0]) * random.standard_normal((1, 1, FILTERS[0], CLASSES))
    weights += [head.astype(np.float32), np.zeros(CLASSES, np.float32)]
    colours = random.standard_normal((CLASSES, 3), dtype=np.float32)
    batches = []
    for _ in range(16):
        squares = random.integers(0, CLASSES, (BATCH, SIDE // 8, SIDE // 8))
        y = squares.repeat(8, axis=1).repeat(8, axis=2)
        noise = random.standard_normal((BATCH, SIDE, SIDE, 3), dtype=np.float32)
        batches.append((colours[y] + noise, y))
    return Problem(weights, batches)


def _keras_model(module: Any, problem: Problem) -> Any:
    """The model of Keras's layers, which `module` (Keras or onnxtape) has."""
    layers = module.layers
    parts: list[tuple[Any, int]] = []
    outputs = iter([count for _, count in UNITS])

    def unit(x: Any) -> Any:
        conv = layers.Conv2D(next(outputs), 3, padding="same", use_bias=False)
        norm = layers.GroupNormalization(GROUPS, epsilon=EPSILON)
        parts.extend([(conv, 1), (norm, 2)])
        return layers.ReLU()(norm(conv(x)))

    inputs = module.Input((SIDE, SIDE, 3))
    x, skips = inputs, []
    for level in range(len(FILTERS)):
        x = unit(unit(x))
        if level + 1 < len(FILTERS):
            skips.append(x)
            x = layers.MaxPooling2D(2)(x)
    for skip in reversed(skips):
        x = layers.Concatenate()([layers.UpSampling2D(2)(x), skip])
        x = unit(unit(x))
    head = layers.Conv2D(CLASSES, 1)
    parts.append((head, 2))
    model = module.Model(inputs, head(x))
    values = iter(problem.weights)
    for layer, count in parts:
        layer.set_weights(list(itertools.islice(values, count)))
    return model


def build_onnxtape(problem: Problem) -> Step:
    """`onnxtape.function` around a `GradientTape`."""
    import onnxtape as ot

    batches = problem.endless(np.int64)
    model = _keras_model(ot, problem)
    optimizer = ot.optimizers.Adam(LEARNING_RATE, epsilon=ADAM_EPSILON)
    return onnxtape_step(model, optimizer, batches)


def build_torch(problem: Problem, compiled: bool = False) -> Step:
    """PyTorch with its fused Adam; `compiled` wraps model and loss in `torch.compile`."""
    import torch
    from torch import nn

    def unit(spec: tuple[int, int]) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(*spec, 3, padding=1, bias=False),
            nn.GroupNorm(GROUPS, spec[1], eps=EPSILON),
            nn.ReLU(),
        )

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            pairs = zip(*[map(unit, UNITS)] * 2, strict=True)
            self.levels = nn.ModuleList(nn.Sequential(*pair) for pair in pairs)
            self.head = nn.Conv2d(FILTERS[0], CLASSES, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            skips = []
            for level, down in enumerate(self.levels[: len(FILTERS)]):
                x = down(x)
                if level + 1 < len(FILTERS):
                    skips.append(x)
                    x = nn.functional.max_pool2d(x, 2)
            for up in self.levels[len(FILTERS) :]:
                x = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
                x = up(torch.cat([x, skips.pop()], dim=1))
            logits: torch.Tensor = self.head(x)
            return logits

    model = UNet()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), problem.weights, strict=True):
            value = value.transpose(3, 2, 0, 1).copy() if value.ndim == 4 else value
            parameter.copy_(torch.from_numpy(value))
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, eps=ADAM_EPSILON, fused=True)
    images = [np.ascontiguousarray(x.transpose(0, 3, 1, 2)) for x, _ in problem.batches]
    batches = itertools.cycle(zip(images, [y for _, y in problem.batches], strict=True))

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(model(x), y)

    return torch_step(loss_of, optimizer, batches, compiled=compiled)


def build_torch_compile(problem: Problem) -> Step:
    """PyTorch with `torch.compile`."""
    return build_torch(problem, compiled=True)


def build_jax(problem: Problem) -> Step:
    """`jax.jit` of the whole step with donated weights and optimizer state."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    batches = problem.endless(np.int32)
    layout = ("NHWC", "HWIO", "NHWC")

    def forward(weights: Any, x: Any, y: Any) -> Any:
        parts = iter(weights)

        def unit(x: Any) -> Any:
            x = lax.conv_general_dilated(x, next(parts), (1, 1), "SAME", dimension_numbers=layout)
            grouped = x.reshape(*x.shape[:3], GROUPS, -1)
            mean = grouped.mean((1, 2, 4), keepdims=True)
            variance = grouped.var((1, 2, 4), keepdims=True)
            normal = (grouped - mean) * lax.rsqrt(variance + EPSILON)
            return jax.nn.relu(normal.reshape(x.shape) * next(parts) + next(parts))

        skips = []
        for level in range(len(FILTERS)):
            x = unit(unit(x))
            if level + 1 < len(FILTERS):
                skips.append(x)
                window = (1, 2, 2, 1)
                x = lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
        for skip in reversed(skips):
            x = x.repeat(2, axis=1).repeat(2, axis=2)
            x = unit(unit(jnp.concatenate([x, skip], axis=-1)))
        return cross_entropy(x @ next(parts)[0, 0] + next(parts), y)

    return donated(forward, adam(LEARNING_RATE, ADAM_EPSILON), problem.weights, batches)


def build_tensorflow(problem: Problem) -> Step:
    """Keras layers in a `tf.function`."""
    import keras

    batches = problem.endless(np.int32)
    model = _keras_model(keras, problem)
    optimizer = keras.optimizers.Adam(LEARNING_RATE, epsilon=ADAM_EPSILON)
    return keras_step(model, optimizer, batches)


WORKLOAD = Workload(
    title=f"U-Net with group normalization, {SIDE}x{SIDE} images, batch {BATCH}, Adam",
    steps=8,
    problem=problem,
    builders={
        "onnxtape": build_onnxtape,
        "torch": build_torch,
        "torch-compile": build_torch_compile,
        "jax": build_jax,
        "tensorflow": build_tensorflow,
    },
)
