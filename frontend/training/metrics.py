"""The metrics of a compiled model: which belongs to which output, and their names in logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxtape import context, metrics, nest
from onnxtape.metrics import Metric
from onnxtape.tensor import Tensor
from onnxtape.training.outputs import by_output, kind_of_targets, output_names

_BY_SHAPES = ("accuracy", "acc")


class CompiledMetrics:
    """What `compile(metrics=..., weighted_metrics=...)` was given.

    Args:
        model: whose outputs they are of.
        unweighted: a list of metrics (names, functions, objects), or such a list per output, in a
            list or a dict by the outputs' names.
        weighted: the same; these take sample weights into account.

    Attributes:
        metrics: all of them, once the outputs are known.
    """

    name = "compile_metrics"

    def __init__(self, model: Any, unweighted: Any, weighted: Any) -> None:
        self._model = model
        for what, given in (("metrics", unweighted), ("weighted_metrics", weighted)):
            if given and not isinstance(given, (list, tuple, Mapping)):
                raise ValueError(
                    f"{what} is a list of metrics, or a list or dict of them for each output, "
                    f"not {given!r}: write {what}=[{given!r}]"
                )
        self._given = {"metrics": unweighted, "weighted_metrics": weighted}
        #: Whether `compile` was given any, as a list at least.
        self.given = unweighted is not None or weighted is not None
        #: (name in logs, index of the output, metric), unweighted ones first.
        self._listed: list[tuple[str, int, Metric]] = []
        self._weighted_from = 0
        self._built = False

    def listed(self) -> list[tuple[str, Metric]]:
        """The metrics by their names in logs."""
        return [(name, metric) for name, _, metric in self._listed]

    @property
    def metrics(self) -> list[Metric]:
        return [metric for _, _, metric in self._listed]

    @property
    def variables(self) -> list[Any]:
        return [variable for metric in self.metrics for variable in metric.variables]

    def build(self, y: Any, y_pred: Any) -> None:
        """Find each output's metrics.

        Raises:
            ValueError: metrics that do not fit the outputs.
        """
        names = output_names(self._model, y_pred)
        targets = self._targets(names, y, y_pred)
        flat = nest.flatten(y_pred)
        listed: list[tuple[str, int, Metric]] = []
        taken: dict[str, int] = {}
        for argument, given in self._given.items():
            if argument == "weighted_metrics":
                self._weighted_from = len(listed)
            for i, wanted in enumerate(self._by_output(argument, given, names, y_pred)):
                for identifier in wanted:
                    metric = get_metric(identifier, targets[i], flat[i])
                    prefix = f"{names[i]}_" if len(names) > 1 and names[i] else ""
                    name = f"{prefix}{metric.name}"
                    if name in taken and argument == "weighted_metrics":
                        name = f"{prefix}weighted_{metric.name}"
                    count = taken.get(name, 0)
                    taken[name] = count + 1
                    listed.append((f"{name}_{count}" if count else name, i, metric))
        self._listed = listed
        self._built = True

    @staticmethod
    def _by_output(
        argument: str, given: Any, names: list[str | None], y_pred: Any
    ) -> list[list[Any]]:
        if not given:
            return [[] for _ in names]
        if len(names) == 1:
            # All of them belong to the one output, however they are nested.
            return [nest.flatten(given)]
        entries = by_output(given, names, y_pred, argument, optional=True)
        return [[] if entry is None else nest.flatten(entry) for entry in entries]

    @staticmethod
    def _targets(names: list[str | None], y: Any, y_pred: Any) -> list[Any]:
        return by_output(y, names, y_pred, "y", optional=isinstance(y, Mapping))

    def update_state(self, y: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take a batch into account.

        Raises:
            ValueError: there are metrics, but no targets for them.
        """
        if not any(self._given.values()):
            return
        if y is None:
            raise ValueError("metrics need targets: give y, or batches (x, y)")
        if not self._built:
            with context.in_layer("metrics"):  # whose variables are made once, and kept
                self.build(y, y_pred)
        names = output_names(self._model, y_pred)
        targets, flat = self._targets(names, y, y_pred), nest.flatten(y_pred)
        weights: list[Any] = [None] * len(flat)
        if sample_weight is not None:
            if nest.is_leaf(sample_weight):
                weights = [sample_weight] * len(flat)
            else:
                weights = by_output(sample_weight, names, y_pred, "sample_weight", optional=True)
        for place, (_, i, metric) in enumerate(self._listed):
            if targets[i] is None:
                raise ValueError(
                    f"y has no entry for the output {names[i]!r}, which has the metric "
                    f"'{metric.name}'"
                )
            if place >= self._weighted_from and weights[i] is not None:
                metric.update_state(targets[i], flat[i], sample_weight=weights[i])
            else:
                metric.update_state(targets[i], flat[i])

    def result(self) -> dict[str, Tensor]:
        """The metrics by their names in logs."""
        return {name: metric.result() for name, _, metric in self._listed}

    def reset_state(self) -> None:
        """Forget all batches."""
        for metric in self.metrics:
            metric.reset_state()


def get_metric(identifier: Any, y_true: Any, y_pred: Any) -> Metric:
    """The metric for a name, function or object; "accuracy" is resolved by the shapes."""
    name = None
    if isinstance(identifier, str):
        name = identifier
        if identifier.lower() in _BY_SHAPES:
            identifier = f"{kind_of_targets(y_true, y_pred)}_accuracy"
    found = metrics.get(identifier)
    if isinstance(found, Metric):
        if name is not None:
            found.name = name
        return found
    name = name or getattr(found, "__name__", type(found).__name__)
    return metrics.MeanMetricWrapper(found, name=name)
