"""Fine-tuning an ONNX file: BERT in small with a classifier, all weights trained, AdamW, float32.

4 layers of width 128 with 4 heads, 64 of 2048 tokens, padding masked, 4 classes, batch 16. The file
is what PyTorch's exporter makes of transformers' model (`benchmarks/models/make_bert.py`); PyTorch
trains that model itself.
"""

import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.jax_steps import adamw, cross_entropy, donated
from benchmarks.jax_transformer import feed_forward, normalized, self_attention
from benchmarks.steps import keras_step, onnxtape_step, torch_step
from benchmarks.workloads import Problem, Step, Workload

LAYERS, WIDTH, HEADS, LENGTH, CLASSES, BATCH = 4, 128, 4, 64, 4, 16
VOCABULARY, POSITIONS = 2048, 128
LEARNING_RATE = 1e-4
WEIGHT_DECAY = 0.01
EPSILON = 1e-7
LAYER_EPSILON = 1e-12
BLOCK = 16
"""How many weights a layer has."""
GRAPH = Path(__file__).parent.parent / "models" / "bert.onnx"

Array = NDArray[np.float32]


def _shapes() -> dict[str, tuple[int, ...]]:
    """The names and shapes of the model's parameters, in PyTorch's order."""
    found: dict[str, tuple[int, ...]] = {}

    def linear(name: str, inputs: int, outputs: int) -> None:
        found[f"{name}.weight"] = (outputs, inputs)
        found[f"{name}.bias"] = (outputs,)

    def normalization(name: str) -> None:
        found[f"{name}.weight"] = found[f"{name}.bias"] = (WIDTH,)

    for table, size in (("word", VOCABULARY), ("position", POSITIONS), ("token_type", 2)):
        found[f"bert.embeddings.{table}_embeddings.weight"] = (size, WIDTH)
    normalization("bert.embeddings.LayerNorm")
    for i in range(LAYERS):
        layer = f"bert.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{part}", WIDTH, WIDTH)
        linear(f"{layer}.attention.output.dense", WIDTH, WIDTH)
        normalization(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", WIDTH, 4 * WIDTH)
        linear(f"{layer}.output.dense", 4 * WIDTH, WIDTH)
        normalization(f"{layer}.output.LayerNorm")
    linear("bert.pooler.dense", WIDTH, WIDTH)
    linear("classifier", WIDTH, CLASSES)
    return found


def names() -> list[str]:
    """The names of the problem's weights."""
    return list(_shapes())


def problem() -> Problem:
    """Weights as after some training, all of them different, and sentences that their first word
    tells the class of."""
    random = np.random.default_rng(0)
    weights = []
    for name, shape in _shapes().items():
        scale = 0.02 if len(shape) > 1 else 0.01
        mean = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        weights.append(random.normal(mean, scale, shape).astype(np.float32))
    batches = []
    for _ in range(32):
        ids = random.integers(0, VOCABULARY, (BATCH, LENGTH))
        lengths = random.integers(LENGTH // 4, LENGTH + 1, (BATCH, 1))
        mask = (np.arange(LENGTH) < lengths).astype(np.int64)
        batches.append((ids * mask, mask, ids[:, 0] % CLASSES))
    return Problem(weights, batches)


def write_file(problem: Problem, path: Path) -> None:
    """The ONNX file with the problem's weights."""
    import onnx

    model = onnx.load(GRAPH)
    weights = dict(zip(names(), problem.weights, strict=True))
    for initializer in model.graph.initializer:
        name = initializer.name
        if name in weights:
            initializer.raw_data = weights[name].tobytes()
        elif name.removesuffix(".T") in weights:
            initializer.raw_data = weights[name.removesuffix(".T")].T.tobytes()
    onnx.save(model, path)


def build_onnxtape(problem: Problem) -> Step:
    """`onnxtape.load_onnx`, and `onnxtape.function` around a `GradientTape`."""
    import onnxtape as ot

    batches = problem.endless(np.int64)
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        path = Path(folder) / "bert.onnx"
        write_file(problem, path)
        model = ot.load_onnx(path)
    optimizer = ot.optimizers.AdamW(LEARNING_RATE, WEIGHT_DECAY, epsilon=EPSILON)
    return onnxtape_step(model, optimizer, batches)


def torch_model(problem: Problem) -> Any:
    """transformers' BertForSequenceClassification, without dropout, with the problem's weights."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        max_position_embeddings=POSITIONS,
        num_labels=CLASSES,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = BertForSequenceClassification(config)
    values = zip(names(), problem.weights, strict=True)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in values})
    return model


def build_torch(problem: Problem, compiled: bool = False) -> Step:
    """The model in PyTorch with fused AdamW; `compiled` wraps model and loss in `torch.compile`."""
    import torch
    from torch import nn

    batches = problem.endless(np.int64)
    model = torch_model(problem).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, eps=EPSILON, fused=True
    )

    def loss_of(ids: torch.Tensor, mask: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logits = model(input_ids=ids, attention_mask=mask).logits
        return nn.functional.cross_entropy(logits, y)

    return torch_step(loss_of, optimizer, batches, compiled=compiled)


def build_torch_compile(problem: Problem) -> Step:
    """PyTorch with `torch.compile`."""
    return build_torch(problem, compiled=True)


def _by_columns(problem: Problem) -> list[Array]:
    """The weights with the matrices of linear layers as JAX and Keras have them."""
    pairs = zip(names(), problem.weights, strict=True)
    return [w.T if w.ndim == 2 and "embeddings" not in name else w for name, w in pairs]


def build_jax(problem: Problem) -> Step:
    """`jax.jit` of the whole step with optax's AdamW, donated weights and optimizer state."""
    import jax
    import jax.numpy as jnp

    batches = problem.endless(np.int32)
    values = _by_columns(problem)
    weights = values[:5]
    for first in range(5, 5 + BLOCK * LAYERS, BLOCK):
        projections, rest = values[first : first + 6], values[first + 6 : first + BLOCK]
        joined = [np.concatenate(projections[i::2], axis=-1) for i in range(2)]
        weights += [*joined, *rest]
    weights += values[-4:]

    def forward(weights: Any, ids: Any, mask: Any, y: Any) -> Any:
        word, position, segment, gamma, beta, *rest = weights
        padding, rows = ids[..., None] == 0, word[ids]
        x = jnp.where(padding, jax.lax.stop_gradient(rows), rows) + position[:LENGTH] + segment[0]
        x = normalized(x, gamma, beta, epsilon=LAYER_EPSILON)
        seen = mask[:, None, None, :] != 0
        for first in range(0, 12 * LAYERS, 12):
            block = rest[first : first + 12]
            x = x + self_attention(x, *block[:4], heads=HEADS, mask=seen)
            x = normalized(x, *block[4:6], epsilon=LAYER_EPSILON)
            x = normalized(x + feed_forward(x, *block[6:10]), *block[10:], epsilon=LAYER_EPSILON)
        pooler, pooler_b, classifier, bias = rest[-4:]
        return cross_entropy(jnp.tanh(x[:, 0] @ pooler + pooler_b) @ classifier + bias, y)

    optimizer = adamw(LEARNING_RATE, EPSILON, WEIGHT_DECAY)
    return donated(forward, optimizer, weights, batches)


def build_tensorflow(problem: Problem) -> Step:
    """Keras layers in a `tf.function`."""
    import keras
    from keras import layers, ops

    def normalization() -> Any:
        return layers.LayerNormalization(epsilon=LAYER_EPSILON)

    class Bert(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            sizes = (VOCABULARY, POSITIONS, 2)
            self.tables = [layers.Embedding(size, WIDTH) for size in sizes]
            self.first = normalization()
            self.blocks = [
                [
                    layers.MultiHeadAttention(HEADS, WIDTH // HEADS),
                    normalization(),
                    layers.Dense(4 * WIDTH, activation="gelu"),
                    layers.Dense(WIDTH),
                    normalization(),
                ]
                for _ in range(LAYERS)
            ]
            self.pooler = layers.Dense(WIDTH, activation="tanh")
            self.classifier = layers.Dense(CLASSES)

        def call(self, ids: Any, mask: Any) -> Any:
            word, position, segment = self.tables
            rows, places = word(ids), ops.arange(LENGTH)
            rows = ops.where(ops.expand_dims(ids == 0, -1), ops.stop_gradient(rows), rows)
            x = self.first(rows + position(places) + segment(ops.zeros_like(places)))
            for attention, between, wide, narrow, after in self.blocks:
                x = between(x + attention(x, x, attention_mask=mask[:, None, :]))
                x = after(x + narrow(wide(x)))
            return self.classifier(self.pooler(x[:, 0]))

    batches = problem.endless(np.int64)
    model = Bert()
    model(*problem.batches[0][:2])
    parts = [*model.tables, model.first, *itertools.chain(*model.blocks)]
    variables = [v for part in (*parts, model.pooler, model.classifier) for v in part.weights]
    for variable, value in zip(variables, _by_columns(problem), strict=True):
        variable.assign(value.reshape(variable.shape))
    optimizer = keras.optimizers.AdamW(LEARNING_RATE, WEIGHT_DECAY, epsilon=EPSILON)
    return keras_step(model, optimizer, batches, dense=True)


WORKLOAD = Workload(
    title=(
        f"fine-tuning a BERT from an ONNX file: {LAYERS} layers, width {WIDTH}, {HEADS} heads, "
        f"{LENGTH} tokens, batch {BATCH}, AdamW"
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
