"""The losses of a compiled model: which belongs to which output, and their weighted sum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnxtape import losses, metrics, nest, ops
from onnxtape.losses.operands import same_rank
from onnxtape.tensor import Tensor
from onnxtape.training.outputs import by_output, kind_of_targets, output_names

_BY_SHAPES = ("crossentropy", "ce")


@dataclass(frozen=True, slots=True)
class OutputLoss:
    """The loss of one output.

    Attributes:
        index: of the output.
        tracker: the mean of the unweighted loss over an epoch; None where it is the only one.
    """

    index: int
    loss: losses.Loss
    weight: float | None
    tracker: metrics.Mean | None


class CompiledLosses:
    """What `compile(loss=..., loss_weights=...)` was given.

    Args:
        loss: a loss (name, function or object), or one per output in a list or a dict; None for
            outputs without.
        loss_weights: factors of the losses, in the same way.

    Attributes:
        outputs: the losses, once the outputs are known.
    """

    def __init__(self, loss: Any, loss_weights: Any) -> None:
        self._loss = loss
        self._weights = loss_weights
        self.outputs: list[OutputLoss] | None = None

    @property
    def metrics(self) -> list[metrics.Metric]:
        """The trackers of the outputs' losses, if there are several."""
        return [part.tracker for part in self.outputs or () if part.tracker is not None]

    def build(self, model: Any, y: list[Any], y_pred: Any) -> list[OutputLoss]:
        """Find each output's loss.

        Raises:
            ValueError: losses or weights that do not fit the outputs.
        """
        names = output_names(model, y_pred)
        flat = nest.flatten(y_pred)
        found = self._found(names, y_pred)
        weights: list[Any] = [None] * len(flat)
        if self._weights is not None:
            weights = by_output(self._weights, names, y_pred, "loss_weights", optional=True)
        several = sum(loss is not None for loss in found) > 1
        self.outputs, taken = [], set()
        for i, (identifier, weight) in enumerate(zip(found, weights, strict=True)):
            if identifier is None:
                continue
            loss = get_loss(identifier, y[i], flat[i])
            tracker = None
            if several:
                name = f"{names[i] or loss.name}_loss"
                while name in taken:
                    name = f"{name}_{i}"
                taken.add(name)
                tracker = metrics.Mean(name=name)
            self.outputs.append(OutputLoss(i, loss, weight, tracker))
        return self.outputs

    def _found(self, names: list[str | None], y_pred: Any) -> list[Any]:
        """What was given for each output; one loss serves them all."""
        if nest.is_leaf(self._loss):
            return [self._loss] * len(names)
        return by_output(self._loss, names, y_pred, "loss", optional=True)

    def __call__(self, model: Any, y: Any, y_pred: Any, sample_weight: Any) -> Any:
        """The weighted sum of the outputs' losses; None without any.

        Raises:
            ValueError: targets or weights that do not fit the outputs.
        """
        names = output_names(model, y_pred)
        flat = nest.flatten(y_pred)
        targets = self._targets(names, y, y_pred)
        weights: list[Any] = [None] * len(flat)
        if sample_weight is not None:
            alone = nest.is_leaf(sample_weight)
            weights = (
                [sample_weight] * len(flat)
                if alone
                else by_output(sample_weight, names, y_pred, "sample_weight", optional=True)
            )
        total = None
        for part in self.outputs or self.build(model, targets, y_pred):
            i = part.index
            value = part.loss(targets[i], flat[i], sample_weight=weights[i])
            if part.tracker is not None:
                part.tracker.update_state(value, sample_weight=ops.shape(flat[i])[0])
            if part.weight is not None:
                value = ops.multiply(value, part.weight)
            total = value if total is None else ops.add(total, value)
        return total

    def _targets(self, names: list[str | None], y: Any, y_pred: Any) -> list[Any]:
        found = self._found(names, y_pred)
        trained = [i for i, loss in enumerate(found) if loss is not None]
        if y is None and trained:
            raise ValueError(
                "the loss needs targets: give y, or batches (x, y); without targets, leave the "
                "loss out of compile() and use add_loss or your own compute_loss"
            )
        # Targets may be given for the outputs with a loss only.
        if isinstance(y, (list, tuple)) and len(y) == len(trained) < len(names):
            return [y[trained.index(i)] if i in trained else None for i in range(len(names))]
        partial = isinstance(y, Mapping)
        targets = by_output(y, names, y_pred, "y", optional=partial)
        if missing := [names[i] for i in trained if targets[i] is None]:
            raise ValueError(f"y has no entry for the output {missing[0]!r}, which has a loss")
        return targets


def get_loss(identifier: Any, y_true: Any, y_pred: Any) -> losses.Loss:
    """The loss for a name, function or object; "crossentropy" is resolved by the shapes."""
    if isinstance(identifier, str) and identifier.lower() in _BY_SHAPES:
        identifier = f"{kind_of_targets(y_true, y_pred)}_crossentropy"
    found = losses.get(identifier)
    if isinstance(found, losses.Loss):
        return found
    return FunctionLoss(found)


class FunctionLoss(losses.Loss):
    """The loss that a function of targets and predictions gives for each sample."""

    def __init__(self, function: Any) -> None:
        super().__init__(name=getattr(function, "__name__", None))
        self.function = function
        # The package's own functions see to the targets themselves; some take classes.
        self._takes_classes = (getattr(function, "__module__", "") or "").startswith("onnxtape.")

    def call(self, y_true: Any, y_pred: Any) -> Any:
        if isinstance(y_true, Tensor) and isinstance(y_pred, Tensor):
            y_true, y_pred = same_rank(y_true, y_pred)
        return self.function(y_true, y_pred)
