"""GradientTape: records what happens, differentiates it backwards."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import numpy as np

from onnxtape import context, nest
from onnxtape.compiler import autodiff
from onnxtape.compiler.dims import Shape, format_shape, is_static
from onnxtape.compiler.dtypes import is_floating
from onnxtape.compiler.errors import located
from onnxtape.compiler.record import Record
from onnxtape.compiler.straight_through import QUANTIZERS
from onnxtape.engine import B, convert_to_tensor
from onnxtape.errors import ShapeError, TracingError
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class GradientTape:
    """Record operations for differentiation, eagerly and inside `ot.function` alike.

    Args:
        persistent: allow several calls of `gradient`; the tape then keeps everything it recorded
            until it is deleted.
        watch_accessed_variables: watch every trainable variable that is read while recording.
        straight_through: let gradients pass rounding, and quantization that is undone again, as
            if nothing were rounded: for training with quantized values (arXiv:1308.3432); not in
            the bodies of `ot.cond` and loops.

    Example:
        with ot.GradientTape() as tape:
            loss = loss_fn(y, model(x))
        gradients = tape.gradient(loss, model.trainable_weights)
    """

    def __init__(
        self,
        persistent: bool = False,
        watch_accessed_variables: bool = True,
        *,
        straight_through: bool = False,
    ) -> None:
        self._persistent = persistent
        self._straight_through = straight_through
        self._watch_accessed = watch_accessed_variables
        self._recording = self._entered = False
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
        self._recording = self._entered = True
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
        symbolic = context.state.symbolic
        if symbolic is not None and self in symbolic.hidden_tapes:
            raise TracingError(
                "a tape was stopped, or asked for gradients, in a branch or loop that it records",
                "Use ot.stop_gradient inside, and take the gradients outside",
            )
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
            RuntimeError: the tape was never entered, by `with`; or a second call on a tape that
                is not persistent.
            TypeError: a source that is neither a tensor nor a variable.
            ShapeError, ValueError: output gradients that do not fit the targets.
        """
        flat = self._sources(sources)
        with self._spent():
            gradients = self._connected(target, flat, output_gradients, unconnected_gradients)
        return nest.pack_like(sources, gradients)

    def jacobian(
        self,
        target: Any,
        sources: Any,
        unconnected_gradients: Literal["none", "zero"] = "none",
    ) -> Any:
        """The derivative of each element of `target` by each element of the sources.

        One backward pass per element of the target.

        Args:
            target: a floating-point tensor; in a compiled step, of static shape.
            sources: as for `gradient`.
            unconnected_gradients: as for `gradient`.

        Returns:
            In `sources`' structure, tensors of shape `target.shape + source.shape`.

        Raises:
            GradientError: an operator on the way has no gradient.
            ShapeError: the target's shape is not known.
            RuntimeError: as for `gradient`.
        """
        target = convert_to_tensor(target)
        shape = self._static(B.shape(target), "the target")
        rows = np.eye(math.prod(shape), dtype=target.dtype)
        seeds = [row.reshape(shape) for row in rows]
        leading = B.constant(np.asarray(shape, np.int64))
        return self._stacked(target, sources, seeds, leading, 0, unconnected_gradients)

    def batch_jacobian(
        self,
        target: Any,
        source: Any,
        unconnected_gradients: Literal["none", "zero"] = "none",
    ) -> Any:
        """The Jacobian of each sample, where target row i depends on source row i alone.

        Args:
            target: of shape (batch, ...), all but the batch static.
            source: of shape (batch, ...).
            unconnected_gradients: as for `gradient`.

        Returns:
            A tensor of shape `(batch, *target.shape[1:], *source.shape[1:])`.

        Raises:
            GradientError, ShapeError, RuntimeError: as for `jacobian`.
        """
        target = convert_to_tensor(target)
        whole = B.shape(target)
        shape = self._static(None if not whole else whole[1:], "the target but its batch")
        rows = np.eye(math.prod(shape), dtype=target.dtype)
        zeros = B.full_like(target, 0.0)
        seeds = [B.op("Add", zeros, row.reshape(1, *shape)) for row in rows]
        leading = B.op("Concat", B.dim_tensor(target, 0), list(shape), axis=0)
        return self._stacked(target, source, seeds, leading, 1, unconnected_gradients)

    @staticmethod
    def _static(shape: Shape | None, what: str) -> tuple[int, ...]:
        if not is_static(shape):
            raise ShapeError(
                located(
                    f"a Jacobian needs the shape of {what}, which is {format_shape(shape)} here; "
                    "use batch_jacobian if only the batch is open",
                    context.provenance(),
                )
            )
        return shape

    def _stacked(
        self,
        target: Tensor,
        sources: Any,
        seeds: Sequence[Any],
        leading: Tensor,
        axis: int,
        unconnected_gradients: Literal["none", "zero"],
    ) -> Any:
        """The gradients under each seed, stacked along `axis`, which becomes axes `leading`."""
        flat = self._sources(sources)
        with self._spent():
            rows = [self._connected(target, flat, seed, unconnected_gradients) for seed in seeds]
        found: list[Tensor | None] = []
        for i, source in enumerate(flat):
            parts = [row[i] for row in rows]
            if all(part is None for part in parts) and unconnected_gradients == "none":
                found.append(None)
                continue
            tensor = convert_to_tensor(source)
            trailing = B.shape_tensor(tensor)
            if axis:
                trailing = B.op("Slice", trailing, [axis], [2**31])
            shape = B.op("Concat", leading, trailing, axis=0)
            if not parts:
                found.append(B.op("ConstantOfShape", shape, value=np.zeros(1, tensor.dtype)))
                continue
            # What one element of the target does not depend on, another may.
            parts = [B.full_like(tensor, 0.0) if p is None else p for p in parts]
            rows_of = [B.op("Unsqueeze", p, [axis]) for p in parts]
            found.append(B.op("Reshape", B.op("Concat", *rows_of, axis=axis), shape, allowzero=1))
        return nest.pack_like(sources, found)

    @staticmethod
    def _sources(sources: Any) -> list[Tensor | Variable]:
        flat = nest.flatten(sources)
        for source in flat:
            if not isinstance(source, (Tensor, Variable)):
                holder = hasattr(source, "trainable_variables")
                raise TypeError(
                    f"gradients are taken by tensors and variables, not {type(source).__name__}"
                    + ("; write model.trainable_variables for its weights" if holder else "")
                )
        return flat

    @contextmanager
    def _spent(self) -> Iterator[None]:
        """Around backward passes: unless it is persistent, the tape is of no use afterwards."""
        if not self._entered:
            raise RuntimeError(
                "this GradientTape has recorded nothing: what is to be differentiated is computed "
                "inside of `with ot.GradientTape() as tape:`"
            )
        if self._used and not self._persistent:
            raise RuntimeError(
                "a GradientTape gives one set of gradients; "
                "use GradientTape(persistent=True) to call gradient() again"
            )
        self._used = True
        # A tape that gives gradients once has no use for a record of its own backward pass.
        with nullcontext() if self._persistent else self.stop_recording():
            yield
        if not self._persistent:
            self._records, self._tracked, self._reads = [], {}, {}

    def _connected(
        self,
        target: Any,
        sources: Sequence[Tensor | Variable],
        output_gradients: Any,
        unconnected_gradients: str,
    ) -> list[Tensor | None]:
        if unconnected_gradients not in ("none", "zero"):
            raise ValueError(
                f"unconnected_gradients is 'none' or 'zero', not {unconnected_gradients!r}"
            )
        gradients = self._gradients(target, sources, output_gradients)
        if unconnected_gradients == "none":
            return gradients
        return [
            B.full_like(convert_to_tensor(s), 0.0) if g is None else g
            for g, s in zip(gradients, sources, strict=True)
        ]

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
        found = autodiff.backward(
            B, self._records, targets, tensors, seeds, straight_through=self._straight_through
        )
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
        rule: Callable[..., Sequence[Any]] | None = None,
    ) -> None:
        tracked = self._tracked
        for x in inputs:
            if id(x) in tracked:
                break
        else:
            return
        place = context.provenance()
        self._records.append(
            Record(op_type, inputs, outputs, attributes, provenance=place, rule=rule)
        )
        for output in outputs:
            if is_floating(output.dtype) or (self._straight_through and op_type in QUANTIZERS):
                tracked[id(output)] = output

    def watches(self, variable: Variable) -> bool:
        """Whether gradients can be taken by the variable once it is read."""
        accessed = self._watch_accessed and variable.trainable
        return is_floating(variable.dtype) and (accessed or variable in self._watched_variables)

    def _tracks(self, tensor: Tensor) -> bool:
        return id(tensor) in self._tracked

    def _read(self, variable: Variable, tensor: Tensor) -> None:
        if id(tensor) not in self._tracked and self.watches(variable):
            self._reads.setdefault(variable, []).append(tensor)
            self._tracked[id(tensor)] = tensor
