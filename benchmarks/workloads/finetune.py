"""Fine-tuning an ONNX file: BERT in small with a classifier, all weights trained, AdamW, float32.

4 layers of width 128 with 4 heads, 64 of 2048 tokens, padding masked, 4 classes, batch 16. The file
is what PyTorch's exporter makes of transformers' model (`benchmarks/models/make_bert.py`); PyTorch
trains that model itself.
"""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads import Problem, Step, Workload

LAYERS, WIDTH, HEADS, LENGTH, CLASSES, BATCH = 4, 128, 4, 64, 4, 16
VOCABULARY, POSITIONS = 2048, 128
LEARNING_RATE = 1e-4
WEIGHT_DECAY = 0.01
EPSILON = 1e-7
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


def _endless(problem: Problem) -> Iterator[tuple[NDArray[np.int64], ...]]:
    return itertools.cycle(problem.batches)


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

    batches = _endless(problem)
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        path = Path(folder) / "bert.onnx"
        write_file(problem, path)
        model = ot.load_onnx(path)
    loss_fn = ot.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = ot.optimizers.AdamW(LEARNING_RATE, WEIGHT_DECAY, epsilon=EPSILON)
    variables = model.trainable_variables

    def train(ids: Any, mask: Any, y: Any) -> Any:
        with ot.GradientTape() as tape:
            loss = loss_fn(y, model(ids, mask))
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    compiled = ot.function(train, fallback="error")
    return lambda: float(compiled(*next(batches)))


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

    batches = _endless(problem)
    model = torch_model(problem).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, eps=EPSILON, fused=True
    )

    def forward(ids: torch.Tensor, mask: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logits = model(input_ids=ids, attention_mask=mask).logits
        return nn.functional.cross_entropy(logits, y)

    loss_fn = torch.compile(forward) if compiled else forward

    def step() -> float:
        ids, mask, y = map(torch.from_numpy, next(batches))
        optimizer.zero_grad()
        loss = loss_fn(ids, mask, y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def build_torch_compile(problem: Problem) -> Step:
    """PyTorch with `torch.compile`."""
    return build_torch(problem, compiled=True)


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
    },
)
