"""A training step by ONNX Runtime's own training packages, which ended at 1.19.2.

They make artifacts from a forward graph: a training graph and an optimizer graph of operators that
only they have. The losses and optimizers that they offer are few, so a workload takes part where it
is one of those.
"""

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.workloads import Step


def build(
    model: Any,
    trained: Sequence[str],
    batches: Sequence[Sequence[Any]],
    *,
    learning_rate: float,
    epsilon: float,
    weight_decay: float = 0.0,
) -> Step:
    """A step with cross-entropy from the model's first output, and Adam.

    Args:
        model: an `onnx.ModelProto`: inputs to logits.
        trained: the names of the initializers that are trained.
        batches: the model's inputs, then the labels.
    """
    from onnxruntime.training import artifacts, onnxblock
    from onnxruntime.training.api import CheckpointState, Module, Optimizer

    class Adam(onnxblock.optim.AdamW):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(eps=epsilon, weight_decay=weight_decay)

    with tempfile.TemporaryDirectory() as folder:
        artifacts.generate_artifacts(
            model,
            requires_grad=list(trained),
            loss=artifacts.LossType.CrossEntropyLoss,
            optimizer=Adam(),
            artifact_directory=folder,
        )
        state = CheckpointState.load_checkpoint(str(Path(folder) / "checkpoint"))
        module = Module(str(Path(folder) / "training_model.onnx"), state)
        optimizer = Optimizer(str(Path(folder) / "optimizer_model.onnx"), module)
    optimizer.set_learning_rate(learning_rate)
    module.train()
    endless = itertools.cycle(batches)

    def step() -> float:
        loss = float(module(*next(endless)))
        optimizer.step()
        module.lazy_reset_grad()
        return loss

    return step
