"""GradientTape: records what happens, differentiates it backwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

from onnxtape import context, nest
from onnxtape.compiler import autodiff
from onnxtape.compiler.dtypes import is_floating
from onnxtape.compiler.record import Record
from onnxtape.engine import B, convert_to_tensor
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class GradientTape:
    """Record operations for differentiation, eagerly and inside `ot.function` alike.

    Args:
        persistent: allow several calls of `gradient`; the tape then keeps everything it recorded
            until it is deleted.
        watch_accessed_variables: watch every trainable variable that is read while recording.

    Example:
        with ot.GradientTape() as tape:
            loss = loss_fn(y, model(x))
        gradients = tape.gradient(loss, model.trainable_weights)
    """

    def __init__(self, persistent: bool = False, watch_accessed_variables: bool = True) -> None:
        self._persistent = persistent
        self._watch_accessed = watch_accessed_variables
        self._recording = False
        self.reset()

    def reset(self) -> None:
        """Forget everything recorded and watched."""
        self._records: list[Record[Tensor]] = []
        # Tensors that a gradient can flow back to, by identity; held, so that ids stay theirs.
        self._tracked: dict[int, Tensor] = {}
        self._reads: dict[Variable, list[Tensor]] = {}
        self._watched_variables: set[Variable] = set()
        self._used = False

    def __enter__(self) -> GradientTape:
        if self._recording:
            raise ValueError("this tape is recording already")
        if not self._persistent:
            self.reset()
        context.state.tapes.append(self)
        self._recording = True
        return self

    def __exit__(self, *_: object) -> None:
        self._recording = False
        if self in context.state.tapes:
            context.state.tapes.remove(self)

    def watch(self, tensor: Any) -> None:
        """Differentiate with respect to these tensors or variables too (any nested structure).

        Raises:
            TypeError: something else, or a tensor that is not floating-point.
        """
        for x in nest.flatten(tensor):
            if isinstance(x, Variable):
                self._watched_variables.add(x)
                continue
            if not isinstance(x, Tensor):
                raise TypeError(
                    f"tape.watch takes tensors and variables, not {type(x).__name__}; make a "
                    "tensor of it with ot.convert_to_tensor and use that inside the tape"
                )
            if not is_floating(x.dtype):
                raise TypeError(f"tape.watch takes floating-point tensors, not {x.dtype}")
            self._tracked[id(x)] = x

    @contextmanager
    def stop_recording(self) -> Iterator[None]:
        """A context in which nothing is recorded on this tape."""
        tapes = context.state.tapes
        place = tapes.index(self) if self in tapes else None
        if place is not None:
            tapes.remove(self)
        try:
            yield
        finally:
            if place is not None:
                tapes.insert(place, self)

    def watched_variables(self) -> tuple[Variable, ...]:
        """The variables read so far that gradients can be taken of."""
        return tuple(self._reads)

    def gradient(
        self,
        target: Any,
        sources: Any,
        output_gradients: Any = None,
        unconnected_gradients: Literal["none", "zero"] = "none",
    ) -> Any:
        """The gradient of the sum of `target`'s elements.

        Args:
            target: a floating-point tensor, or a nested structure of them, whose sum is meant.
            sources: watched tensors and variables, and tensors computed from such, in any nested
                structure.
            output_gradients: cotangents in `target`'s structure; ones by default.
            unconnected_gradients: what a source gets that no differentiable path leads to:
                "none" (None) or "zero" (zeros of its shape).

        Returns:
            The gradients in `sources`' structure, each of its source's shape and dtype.

        Raises:
            GradientError: an operator on the way has no gradient.
            RuntimeError: a second call on a tape that is not persistent.
            TypeError: a source that is neither a tensor nor a variable.
            ShapeError, ValueError: output gradients that do not fit the targets.
        """
        if unconnected_gradients not in ("none", "zero"):
            raise ValueError(
                f"unconnected_gradients is 'none' or 'zero', not {unconnected_gradients!r}"
            )
        if self._used and not self._persistent:
            raise RuntimeError(
                "a GradientTape gives one set of gradients; "
                "use GradientTape(persistent=True) to call gradient() again"
            )
        flat_sources = nest.flatten(sources)
        for source in flat_sources:
            if not isinstance(source, (Tensor, Variable)):
                raise TypeError(
                    f"gradients are taken by tensors and variables, not {type(source).__name__}"
                )
        self._used = True
        # A tape that gives gradients once has no use for a record of its own backward pass.
        with nullcontext() if self._persistent else self.stop_recording():
            gradients = self._gradients(target, flat_sources, output_gradients)
            if unconnected_gradients == "zero":
                gradients = [
                    B.full_like(convert_to_tensor(s), 0.0) if g is None else g
                    for g, s in zip(gradients, flat_sources, strict=True)
                ]
        if not self._persistent:
            self._records, self._tracked, self._reads = [], {}, {}
        return nest.pack_like(sources, gradients)

    def _gradients(
        self, target: Any, sources: Sequence[Any], output_gradients: Any
    ) -> list[Tensor | None]:
        targets = [convert_to_tensor(t) for t in nest.flatten(target)]
        seeds = None
        if output_gradients is not None:
            given = nest.flatten(output_gradients)
            if len(given) != len(targets):
                raise ValueError(
                    f"{len(given)} output gradients were given for {len(targets)} targets; "
                    "give one for each, None for ones"
                )
            seeds = [
                None if g is None else convert_to_tensor(g, t.dtype)
                for g, t in zip(given, targets, strict=True)
            ]
        # A variable stands for all its readings, which an assignment between them keeps apart.
        tensors: list[Tensor] = []
        spans: list[range] = []
        for source in sources:
            if isinstance(source, Variable):
                places = self._reads.get(source, [])
            else:
                # What was not watched was recorded in part, by way of what it met.
                places = [source] if id(source) in self._tracked else []
            spans.append(range(len(tensors), len(tensors) + len(places)))
            tensors.extend(places)
        found = autodiff.backward(B, self._records, targets, tensors, seeds)
        totals: list[Tensor | None] = []
        for span in spans:
            parts = [g for g in found[span.start : span.stop] if g is not None]
            totals.append(B.op("Sum", *parts) if len(parts) > 1 else next(iter(parts), None))
        return totals

    # Called by the engine ------------------------------------------------------------------------

    def _record(
        self,
        op_type: str,
        inputs: Sequence[Tensor | None],
        attributes: Mapping[str, Any],
        outputs: Sequence[Tensor],
    ) -> None:
        tracked = self._tracked
        for x in inputs:
            if id(x) in tracked:
                break
        else:
            return
        place = context.provenance()
        self._records.append(Record(op_type, inputs, outputs, attributes, provenance=place))
        for output in outputs:
            if is_floating(output.dtype):
                tracked[id(output)] = output

    def _tracks(self, tensor: Tensor) -> bool:
        return id(tensor) in self._tracked

    def _read(self, variable: Variable, tensor: Tensor) -> None:
        if id(tensor) in self._tracked or not is_floating(variable.dtype):
            return
        if variable in self._watched_variables or (self._watch_accessed and variable.trainable):
            self._reads.setdefault(variable, []).append(tensor)
            self._tracked[id(tensor)] = tensor
