"""A model's method of one batch, compiled."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from onnxtape.compiled_function import Function, function


class BatchFunction:
    """`train_step`, `test_step` or `predict_step` of a model as one `ot.function`.

    Args:
        model: whose method it is.
        method: its name.
        run_eagerly: run it as plain Python instead.
    """

    def __init__(self, model: Any, method: str, run_eagerly: bool = False) -> None:
        self._model = model
        self._method = method
        self._run_eagerly = run_eagerly
        # By how many parts a batch has. One parameter for each makes for the fastest calls, and
        # for inputs named x, y and sample_weight in an artifact.
        self._functions: dict[int, Function] = {}
        self._last = -1

    def __call__(self, data: Any) -> Any:
        """Run the method on a batch: what it returns, with tensors."""
        if self._run_eagerly:
            return self._run(data)
        # Three at most are x, y and sample_weight; whatever else there is, the method takes apart.
        parts = data if type(data) is tuple and 1 <= len(data) <= 3 else None
        self._last = 0 if parts is None else len(parts)
        compiled = self._functions.get(self._last)
        if compiled is None:
            compiled = self._functions[self._last] = self._compiled(self._last)
        return compiled(data) if parts is None else compiled(*parts)

    def _run(self, data: Any) -> Any:
        return getattr(self._model, self._method)(data)

    def _compiled(self, parts: int) -> Function:
        def whole(data: Any) -> Any:
            return self._run(data)

        def inputs(x: Any) -> Any:
            return self._run((x,))

        def pair(x: Any, y: Any) -> Any:
            return self._run((x, y))

        def weighted(x: Any, y: Any, sample_weight: Any) -> Any:
            return self._run((x, y, sample_weight))

        chosen = (whole, inputs, pair, weighted)[parts]
        chosen.__name__ = self._method
        compiled: Function = function(chosen)
        return compiled

    @property
    def function(self) -> Function:
        """The `ot.function` that ran the last batch: to export it, or to look at its graph.

        Raises:
            ValueError: nothing has been compiled yet.
        """
        if self._last not in self._functions:
            raise ValueError(
                f"{self._method} has not been compiled yet: fit, evaluate or predict on a batch"
            )
        return self._functions[self._last]

    def export(
        self, path: str | os.PathLike[str], *args: Any, evaluation: Any = None, **kwargs: Any
    ) -> Path:
        """Write the step as an artifact; see `Function.export`.

        Args:
            evaluation: a compiled function, or a model's `test_function`, to write as well.

        Raises:
            ValueError: nothing has been compiled yet, here or in `evaluation`.
        """
        if isinstance(evaluation, BatchFunction):
            evaluation = evaluation.function
        folder: Path = self.function.export(Path(path), *args, evaluation=evaluation, **kwargs)
        return folder

    @property
    def trace_count(self) -> int:
        """How often Python has been traced."""
        return sum(compiled.trace_count for compiled in self._functions.values())

    def __getstate__(self) -> dict[str, Any]:
        # What is compiled belongs to the variables of this model; a copy compiles for its own.
        return {**self.__dict__, "_functions": {}, "_last": -1}
