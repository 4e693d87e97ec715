"""ResNet-20 for 32 x 32 images (arXiv:1512.03385, section 4.2), batch 32, momentum, float32.

Three stages of three blocks with 16, 32 and 64 channels, batch normalization in training mode with
running statistics, and shortcuts by 1 x 1 kernels where the size changes.

With stride 2, Keras pads after the image and PyTorch before it. Both compute the same network on
mirrored images with mirrored kernels, which is what PyTorch is given: each has its own padding.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.jax_steps import cross_entropy, momentum
from benchmarks.steps import keras_step, onnxtape_step, torch_step
from benchmarks.workloads import Problem, Step, Workload

BATCH = 32
SIDE = 32
STAGES = (16, 32, 64)
BLOCKS = 3
CLASSES = 10
LEARNING_RATE = 0.01
MOMENTUM = 0.9
KEPT = 0.99
"""What the running statistics keep at each step."""
EPSILON = 1e-3

Unit = tuple[int, int, int, int]
"""A convolution and its normalization: inputs, outputs, kernel size, stride."""


def units() -> Iterator[Unit]:
    """All of them: the first one, then two for each block and one more for a shortcut."""
    yield 3, STAGES[0], 3, 1
    inputs = STAGES[0]
    for stage, outputs in enumerate(STAGES):
        for block in range(BLOCKS):
            stride = 2 if stage and not block else 1
            yield inputs, outputs, 3, stride
            yield outputs, outputs, 3, 1
            if stride > 1:
                yield inputs, outputs, 1, stride
            inputs = outputs


def problem() -> Problem:
    """He's weights; images of noise around a pattern for each class."""
    random = np.random.default_rng(0)
    weights: list[NDArray[np.float32]] = []
    for inputs, outputs, size, _ in units():
        scale = np.sqrt(2 / (size * size * inputs))
        kernel = scale * random.standard_normal((size, size, inputs, outputs))
        ones, zeros = np.ones(outputs, np.float32), np.zeros(outputs, np.float32)
        weights += [kernel.astype(np.float32), ones, zeros, zeros, ones]
    limit = np.sqrt(6 / (STAGES[-1] + CLASSES))
    weights.append(random.uniform(-limit, limit, (STAGES[-1], CLASSES)).astype(np.float32))
    weights.append(np.zeros(CLASSES, np.float32))
    patterns = random.standard_normal((CLASSES, SIDE, SIDE, 3), dtype=np.float32)
    batches = []
    for _ in range(16):
        y = random.integers(0, CLASSES, BATCH)
        noise = random.standard_normal((BATCH, SIDE, SIDE, 3), dtype=np.float32)
        batches.append((0.5 * patterns[y] + noise, y))
    return Problem(weights, batches)


def _keras_model(module: Any, problem: Problem) -> Any:
    """The model of Keras's layers, which `module` (Keras or onnxtape) has."""
    layers = module.layers
    parts: list[tuple[Any, int]] = []

    def unit(x: Any, spec: Unit) -> Any:
        _, outputs, size, stride = spec
        conv = layers.Conv2D(outputs, size, strides=stride, padding="same", use_bias=False)
        norm = layers.BatchNormalization(momentum=KEPT, epsilon=EPSILON)
        parts.extend([(conv, 1), (norm, 4)])
        return norm(conv(x))

    specs = units()
    inputs = module.Input((SIDE, SIDE, 3))
    x = layers.ReLU()(unit(inputs, next(specs)))
    for stage in range(len(STAGES)):
        for block in range(BLOCKS):
            y = layers.ReLU()(unit(x, next(specs)))
            y = unit(y, next(specs))
            shortcut = unit(x, next(specs)) if stage and not block else x
            x = layers.ReLU()(layers.Add()([y, shortcut]))
    head = layers.Dense(CLASSES)
    parts.append((head, 2))
    model = module.Model(inputs, head(layers.GlobalAveragePooling2D()(x)))
    values = iter(problem.weights)
    for layer, count in parts:
        layer.set_weights(list(itertools.islice(values, count)))
    return model


def build_onnxtape(problem: Problem) -> Step:
    """`onnxtape.function` around a `GradientTape`."""
    import onnxtape as ot

    batches = problem.endless(np.int64)
    model = _keras_model(ot, problem)
    optimizer = ot.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM)
    return onnxtape_step(model, optimizer, batches)


def build_torch(problem: Problem, compiled: bool = False) -> Step:
    """PyTorch with its fused SGD; `compiled` wraps model and loss in `torch.compile`."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, specs: Iterator[Unit], shortcut: bool) -> None:
            super().__init__()
            self.first, self.second = _torch_unit(next(specs)), _torch_unit(next(specs))
            self.shortcut = _torch_unit(next(specs)) if shortcut else None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.second(torch.relu(self.first(x)))
            # In mirrored images the places that a stride of 2 keeps are the odd ones.
            kept = x if self.shortcut is None else self.shortcut(x[:, :, 1::2, 1::2])
            return torch.relu(y + kept)

    specs = units()
    layers: list[nn.Module] = [_torch_unit(next(specs)), nn.ReLU()]
    for stage, block in itertools.product(range(len(STAGES)), range(BLOCKS)):
        layers.append(Block(specs, shortcut=stage > 0 and block == 0))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(STAGES[-1], CLASSES)]
    model = nn.Sequential(*layers)
    values = iter(problem.weights)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                kernel = next(values)[::-1, ::-1].transpose(3, 2, 0, 1)
                module.weight.copy_(torch.from_numpy(kernel.copy()))
            elif isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                    assert tensor is not None
                    tensor.copy_(torch.from_numpy(next(values)))
            elif isinstance(module, nn.Linear):
                module.weight.copy_(torch.from_numpy(next(values).T))
                module.bias.copy_(torch.from_numpy(next(values)))
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, momentum=MOMENTUM, fused=True)
    mirrored = [
        (np.ascontiguousarray(x[:, ::-1, ::-1].transpose(0, 3, 1, 2)), y)
        for x, y in problem.batches
    ]
    batches = itertools.cycle(mirrored)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(model(x), y)

    return torch_step(loss_of, optimizer, batches, compiled=compiled)


def _torch_unit(spec: Unit) -> Any:
    from torch import nn

    inputs, outputs, size, stride = spec
    stride = 1 if size == 1 else stride
    conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs, eps=EPSILON, momentum=1 - KEPT))


def build_torch_compile(problem: Problem) -> Step:
    """PyTorch with `torch.compile`."""
    return build_torch(problem, compiled=True)


def build_jax(problem: Problem) -> Step:
    """`jax.jit` of the whole step with donated weights, statistics and optimizer state."""
    import jax
    import jax.numpy as jnp

    batches = problem.endless(np.int32)
    init, update = momentum(LEARNING_RATE, MOMENTUM)

    def forward(weights: Any, statistics: Any, x: Any, y: Any) -> Any:
        parts, moving, fresh = iter(weights), iter(statistics), []

        def unit(x: Any, spec: Unit) -> Any:
            stride = spec[-1]
            x = jax.lax.conv_general_dilated(
                x, next(parts), (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
            fresh.extend(KEPT * next(moving) + (1 - KEPT) * s for s in (mean, variance))
            scale = jax.lax.rsqrt(variance + EPSILON) * next(parts)
            return (x - mean) * scale + next(parts)

        specs = units()
        x = jax.nn.relu(unit(x, next(specs)))
        for stage, block in itertools.product(range(len(STAGES)), range(BLOCKS)):
            z = unit(jax.nn.relu(unit(x, next(specs))), next(specs))
            x = jax.nn.relu(z + (unit(x, next(specs)) if stage and not block else x))
        return cross_entropy(x.mean((1, 2)) @ next(parts) + next(parts), y), fresh

    def train(weights: Any, statistics: Any, state: Any, x: Any, y: Any) -> Any:
        value_and_grad = jax.value_and_grad(forward, has_aux=True)
        (loss, statistics), grads = value_and_grad(weights, statistics, x, y)
        weights, state = update(grads, state, weights)
        return loss, weights, statistics, state

    compiled = jax.jit(train, donate_argnums=(0, 1, 2))
    *units_, head, bias = [jnp.array(value) for value in problem.weights]
    rows = list(zip(*[iter(units_)] * 5, strict=True))
    weights = [*itertools.chain.from_iterable(row[:3] for row in rows), head, bias]
    statistics = list(itertools.chain.from_iterable(row[3:] for row in rows))
    state = init(weights)

    def step() -> float:
        nonlocal weights, statistics, state
        loss, weights, statistics, state = compiled(weights, statistics, state, *next(batches))
        return float(loss)

    return step


def build_tensorflow(problem: Problem) -> Step:
    """Keras layers in a `tf.function`."""
    import keras

    batches = problem.endless(np.int32)
    model = _keras_model(keras, problem)
    optimizer = keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM)
    return keras_step(model, optimizer, batches)


WORKLOAD = Workload(
    title=f"ResNet-20, {SIDE}x{SIDE} images, batch {BATCH}, SGD with momentum",
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
