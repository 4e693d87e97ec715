"""A model's steps over one batch: what `fit`, `evaluate` and `predict` repeat."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from onnxtape import context, nest, ops
from onnxtape.engine import convert_to_tensor
from onnxtape.tensor import Tensor
from onnxtape.training.arrays import unpack_x_y_sample_weight
from onnxtape.training.compilation import Compilation

if TYPE_CHECKING:
    from onnxtape.metrics import Metric


class Steps:
    """What a model does with a batch.

    Subclasses may write `train_step(data)`, `test_step(data)` and `predict_step(data)`, or only
    `compute_loss` and `compute_metrics`.

    Attributes:
        optimizer: the one given to `compile`.
    """

    optimizer: Any = None
    _compilation: Compilation | None = None

    def _compiled_for(self, method: str) -> Compilation:
        if self._compilation is None:
            name = getattr(self, "name", type(self).__name__)
            raise ValueError(
                f"model '{name}' has to be compiled before {method}(): call "
                "model.compile(optimizer, loss) first"
            )
        return self._compilation

    def train_step(self, data: Any) -> Mapping[str, Any]:
        """Train on a batch; returns what to log.

        As in Keras, a model whose `call` takes no `training` is called without it: its layers do
        what they do by default, which of dropout is nothing.

        Args:
            data: x, (x, y) or (x, y, sample_weight), with tensors.
        """
        from onnxtape.tape import GradientTape

        x, y, sample_weight = unpack_x_y_sample_weight(data)
        takes_training = self.takes_training  # type: ignore[attr-defined]
        if not takes_training:
            self._warn_of_layers_at_rest()
        with GradientTape() as tape:
            y_pred = self(x, training=True) if takes_training else self(x)  # type: ignore[operator]
            loss = self._loss(x, y, y_pred, sample_weight, training=True)
            scaled = self.optimizer.scale_loss(loss)
        self._track_loss(loss, x)
        weights = self.trainable_variables  # type: ignore[attr-defined]
        if weights:
            self.optimizer.apply(tape.gradient(scaled, weights), weights)
        else:
            name = self.name  # type: ignore[attr-defined]
            context.warn_user(f"model '{name}' has no trainable weights")
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def test_step(self, data: Any) -> Mapping[str, Any]:
        """Evaluate a batch; returns what to log."""
        x, y, sample_weight = unpack_x_y_sample_weight(data)
        y_pred = self(x, training=False)  # type: ignore[operator]
        loss = self._loss(x, y, y_pred, sample_weight, training=False)
        self._track_loss(loss, x)
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def predict_step(self, data: Any) -> Any:
        """The predictions for a batch."""
        x, _, _ = unpack_x_y_sample_weight(data)
        return self(x, training=False)  # type: ignore[operator]

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The total loss of a batch: of `compile(loss=...)`, `add_loss` and regularizers.

        Raises:
            ValueError: there is no loss; or targets do not fit the outputs.
        """
        losses = self._compiled_for("compute_loss").losses
        parts = []
        if losses is not None:
            total = losses(self, y, y_pred, sample_weight)
            if total is not None:
                parts.append(total)
        parts.extend(ops.sum(part) for part in self.losses)  # type: ignore[attr-defined]
        if not parts:
            raise ValueError(
                "there is no loss to train with: give compile() a loss, call add_loss in the "
                "model, or write your own compute_loss or train_step"
            )
        total = parts[0]
        for part in parts[1:]:
            total = ops.add(total, ops.cast(part, total.dtype))
        return total

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> Mapping[str, Any]:
        """Update the metrics of `compile` with a batch; returns all results, by name."""
        self._compiled_for("compute_metrics").metrics.update_state(y, y_pred, sample_weight)
        return self.get_metrics_result()

    def get_metrics_result(self) -> dict[str, Any]:
        """The results of all metrics, by their names in logs."""
        results: dict[str, Any] = {}
        for metric in self.metrics:
            found: Any = metric.result()
            if isinstance(found, Mapping):
                results.update(found)
            else:
                results[metric.name] = found
        return results

    def _warn_of_layers_at_rest(self) -> None:
        from onnxtape.layers import BatchNormalization, Dropout

        names = [
            f"'{layer.name}'"
            for layer in self._flatten_layers()  # type: ignore[attr-defined]
            if isinstance(layer, BatchNormalization) or (isinstance(layer, Dropout) and layer.rate)
        ]
        if names:
            context.warn_user(
                f"{type(self).__name__}.call takes no argument 'training', so {', '.join(names)} "
                "will do in training what they do in inference, as in Keras: write "
                "call(self, inputs, training=None), and hand it on or leave that to the layers"
            )

    def _loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool) -> Any:
        # Keras's older compute_loss has no argument `training`.
        taken = inspect.signature(self.compute_loss).parameters
        extra = {"training": training} if "training" in taken else {}
        loss = self.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, **extra)
        return convert_to_tensor(loss)

    def _track_loss(self, loss: Tensor, x: Any) -> None:
        with context.in_layer("loss"):
            first = next(leaf for leaf in nest.flatten(x) if leaf is not None)
            count = ops.shape(first)[0]
            self._compiled_for("train_step").loss_tracker.update_state(loss, sample_weight=count)

    # Metrics ------------------------------------------------------------------------------------

    @property
    def metrics(self) -> list[Metric | Any]:
        """All metrics: the loss's mean, those of `compile`, and those that layers hold."""
        own = [] if self._compilation is None else self._compilation.own_metrics
        return [*own, *self._held_metrics()]  # type: ignore[attr-defined]

    @property
    def metrics_names(self) -> list[str]:
        return [metric.name for metric in self.metrics]

    def reset_metrics(self) -> None:
        """Let all metrics forget what they have seen."""
        for metric in self.metrics:
            metric.reset_state()
