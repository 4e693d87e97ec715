"""A perceptron 784-64-64-10 with relu, cross-entropy from logits, batch 64, Adam, float32.

The arithmetic of one step takes a fraction of a millisecond on any recent processor, so this
workload shows above all what a framework adds to each step.
"""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.jax_steps import adam, cross_entropy, donated
from benchmarks.steps import keras_step, onnxtape_step, torch_step
from benchmarks.workloads import Problem, Step, Workload

BATCH = 64
WIDTHS = (784, 64, 64, 10)
LEARNING_RATE = 1e-3
EPSILON = 1e-7


def problem() -> Problem:
    """Glorot weights, and batches whose labels a linear teacher gives, one in five at random."""
    random = np.random.default_rng(0)
    weights: list[NDArray[np.float32]] = []
    for rows, columns in itertools.pairwise(WIDTHS):
        limit = np.sqrt(6 / (rows + columns))
        kernel = random.uniform(-limit, limit, (rows, columns))
        weights += [kernel.astype(np.float32), np.zeros(columns, np.float32)]
    teacher = random.standard_normal((WIDTHS[0], WIDTHS[-1]), dtype=np.float32)
    batches = []
    for _ in range(128):
        x = random.standard_normal((BATCH, WIDTHS[0]), dtype=np.float32)
        noise = random.integers(0, WIDTHS[-1], BATCH)
        y = np.where(random.random(BATCH) < 0.2, noise, (x @ teacher).argmax(axis=1))
        batches.append((x, y))
    return Problem(weights, batches)


def _model(keras: Any) -> Any:
    """The model in `keras`, which may be Keras or onnxtape: they are spelled alike."""
    return keras.Sequential(
        [
            keras.Input((WIDTHS[0],)),
            *(keras.layers.Dense(width, activation="relu") for width in WIDTHS[1:-1]),
            keras.layers.Dense(WIDTHS[-1]),
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


def build_torch(problem: Problem, compiled: bool = False) -> Step:
    """PyTorch with its fused Adam; `compiled` wraps model and loss in `torch.compile`."""
    import torch
    from torch import nn

    batches = problem.endless(np.int64)
    layers: list[nn.Module] = []
    for rows, columns in itertools.pairwise(WIDTHS):
        layers += [nn.Linear(rows, columns), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), problem.weights, strict=True):
            parameter.copy_(torch.from_numpy(value.T))
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, eps=EPSILON, fused=True)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(model(x), y)

    return torch_step(loss_of, optimizer, batches, compiled=compiled)


def build_torch_compile(problem: Problem) -> Step:
    """PyTorch with `torch.compile`."""
    return build_torch(problem, compiled=True)


def build_jax(problem: Problem) -> Step:
    """`jax.jit` of the whole step with donated weights and optimizer state.

    Adam is optax's where optax is installed, else written out here. NumPy batches go straight into
    the compiled function.
    """
    import jax

    batches = problem.endless(np.int32)

    def forward(weights: Any, x: Any, y: Any) -> Any:
        *hidden, (kernel, bias) = zip(weights[::2], weights[1::2], strict=True)
        for hidden_kernel, hidden_bias in hidden:
            x = jax.nn.relu(x @ hidden_kernel + hidden_bias)
        return cross_entropy(x @ kernel + bias, y)

    return donated(forward, adam(LEARNING_RATE, EPSILON), problem.weights, batches)


def build_tensorflow(problem: Problem) -> Step:
    """Keras layers in a `tf.function`."""
    import keras

    batches = problem.endless(np.int32)
    model = _model(keras)
    model.set_weights(problem.weights)
    optimizer = keras.optimizers.Adam(LEARNING_RATE, epsilon=EPSILON)
    return keras_step(model, optimizer, batches)


def build_ort_training(problem: Problem) -> Step:
    """ONNX Runtime's training packages, from the forward graph."""
    from onnx import TensorProto, helper, numpy_helper

    from benchmarks import ort_training

    names = [f"{kind}_{i}" for i in range(len(WIDTHS) - 1) for kind in ("kernel", "bias")]
    nodes, x = [], "x"
    for i in range(len(WIDTHS) - 1):
        last = i == len(WIDTHS) - 2
        dense = "logits" if last else f"dense_{i}"
        nodes.append(helper.make_node("Gemm", [x, *names[2 * i : 2 * i + 2]], [dense]))
        x = dense if last else f"relu_{i}"
        nodes += [] if last else [helper.make_node("Relu", [dense], [x])]
    shapes = (("x", WIDTHS[0]), ("logits", WIDTHS[-1]))
    given, logits = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
        for name, width in shapes
    )
    weights = [numpy_helper.from_array(w, n) for n, w in zip(names, problem.weights, strict=True)]
    graph = helper.make_graph(nodes, "mlp", [given], [logits], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    batches = [(x, y.astype(np.int64)) for x, y in problem.batches]
    return ort_training.build(model, names, batches, learning_rate=LEARNING_RATE, epsilon=EPSILON)


WORKLOAD = Workload(
    title="MLP 784-64-64-10, batch 64, Adam, float32",
    steps=300,
    problem=problem,
    builders={
        "onnxtape": build_onnxtape,
        "torch": build_torch,
        "torch-compile": build_torch_compile,
        "jax": build_jax,
        "tensorflow": build_tensorflow,
        "ort-training": build_ort_training,
    },
)
