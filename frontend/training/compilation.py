"""What `Model.compile` was given, ready for use."""

from __future__ import annotations

from typing import Any

from onnxtape import metrics as metrics_module
from onnxtape import optimizers
from onnxtape.mixed_precision import DTypePolicy
from onnxtape.training.batch_function import BatchFunction
from onnxtape.training.losses import CompiledLosses
from onnxtape.training.metrics import CompiledMetrics


def _scaled(optimizer: Any, model: Any) -> Any:
    """The optimizer, with a scaled loss where the model's gradients may leave float16's range."""
    if isinstance(optimizer, optimizers.LossScaleOptimizer):
        return optimizer
    if model.dtype_policy != DTypePolicy("mixed_float16"):
        return optimizer
    return optimizers.LossScaleOptimizer(optimizer, name="loss_scale_optimizer")


class Compilation:
    """The optimizer, losses, metrics and compiled steps of a model; see `Trainer.compile`.

    Attributes:
        given: the arguments of `compile` that `Trainer.get_compile_config` tells of.
        loss_tracker: the mean of the total loss, "loss" in logs.
        losses: None where no loss was given.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        loss: Any,
        loss_weights: Any,
        metrics: Any,
        weighted_metrics: Any,
        run_eagerly: bool,
        auto_scale_loss: bool,
    ) -> None:
        self.optimizer = optimizers.get(optimizer)
        if auto_scale_loss and self.optimizer is not None:
            self.optimizer = _scaled(self.optimizer, model)
        self.given = {
            "optimizer": self.optimizer,
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
            "run_eagerly": run_eagerly,
            "auto_scale_loss": auto_scale_loss,
        }
        self.losses = None if loss is None else CompiledLosses(loss, loss_weights)
        self.metrics = CompiledMetrics(model, metrics, weighted_metrics)
        self.loss_tracker = metrics_module.Mean(name="loss")
        self.train_function = BatchFunction(model, "train_step", run_eagerly)
        self.test_function = BatchFunction(model, "test_step", run_eagerly)
        self.predict_function = BatchFunction(model, "predict_step", run_eagerly)

    @property
    def own_metrics(self) -> list[Any]:
        """The loss's mean, the metrics together, and those of several outputs' losses."""
        losses = [] if self.losses is None else self.losses.metrics
        return [self.loss_tracker, *([self.metrics] if self.metrics.given else []), *losses]
