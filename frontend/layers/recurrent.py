"""Recurrent layers, with Keras 3's arguments, defaults, weights and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnxtape import context, nest, ops
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.layers.layer import Layer
from onnxtape.layers.recurrent_base import GatedCell, RecurrentCell, Remade
from onnxtape.layers.recurrent_cells import GRUCell, LSTMCell, SimpleRNNCell, StackedRNNCells
from onnxtape.ops.axes import refused
from onnxtape.tensor import Tensor


class RNN(Remade, Layer):
    """A cell, or several on top of each other, run over a sequence.

    Args:
        cell: a layer whose `call(inputs, states)` returns an output and the next states, with the
            attributes `state_size` and `output_size`; or a list of them.
        return_sequences: return the outputs of all steps instead of the last one's.
        return_state: return the last states as well.
        go_backwards: start at the end; the outputs come in that order.
        zero_output_for_mask: where a step is masked, the output is zero, not the previous one.

    Shapes: (batch, time, ...) to (batch, output_size) or (batch, time, output_size); a mask is
    boolean, (batch, time). SimpleRNN, GRU and LSTM without mask and recurrent dropout are one ONNX
    operator, for sequences of any length; anything else is written out step by step, for which the
    length must be known.
    """

    def __init__(
        self,
        cell: Any,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if stateful:
            raise ValueError(
                f"{type(self).__name__} '{self.name}': stateful=True is not supported; with "
                "return_state=True, pass the states on as initial_state"
            )
        self.cell: Any = StackedRNNCells(cell) if isinstance(cell, (list, tuple)) else cell
        for name in ("state_size", "call"):
            if not hasattr(self.cell, name):
                raise ValueError(f"RNN: the cell {cell!r} has no {name}")
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.go_backwards = go_backwards
        self.stateful = stateful
        self.unroll = unroll
        self.zero_output_for_mask = zero_output_for_mask
        #: Whether outputs come in the order of time even when it goes backwards.
        self.keeps_time_order = False

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) < 3:
            raise refused(
                f"{type(self).__name__} '{self.name}' needs inputs of shape (batch, time, "
                f"features), not {format_shape(input_shape)}"
            )
        if not self.cell.built and not isinstance(self.cell, StackedRNNCells):
            with context.in_layer(self.cell.name):
                self.cell.build((input_shape[0], *input_shape[2:]))
        self.built = True

    def get_initial_state(self, batch_size: Any) -> list[Any]:
        """The cell's states of zeros for so many sequences."""
        if hasattr(self.cell, "get_initial_state"):
            return list(self.cell.get_initial_state(batch_size))
        sizes = self.cell.state_size
        sizes = list(sizes) if isinstance(sizes, (list, tuple)) else [sizes]
        return [ops.zeros((batch_size, size), self.compute_dtype) for size in sizes]

    def call(
        self,
        sequences: Any,
        initial_state: Any = None,
        mask: Any = None,
        training: bool = False,
    ) -> Any:
        x = convert_to_tensor(sequences, self.compute_dtype)
        rank = B.known_rank(x, f"{type(self).__name__} '{self.name}'")
        if rank < 3:
            raise refused(
                f"{type(self).__name__} '{self.name}' needs inputs of shape (batch, time, "
                f"features), not {format_shape(B.shape(x))}"
            )
        if initial_state is not None:
            states = initial_state if isinstance(initial_state, (list, tuple)) else [initial_state]
            initial_state = nest.map_structure(
                lambda s: convert_to_tensor(s, self.compute_dtype), [*states]
            )
            expected = len(self.get_initial_state(1))
            if len(initial_state) != expected:
                raise refused(
                    f"{type(self).__name__} '{self.name}' has {expected} states, but "
                    f"initial_state has {len(initial_state)}"
                )
        if isinstance(self.cell, RecurrentCell):
            self.cell.reset_dropout()
        steps_first = B.op("Transpose", x, perm=[1, 0, *range(2, rank)])
        whole = isinstance(self.cell, GatedCell) and self.cell.can_run_whole(training)
        if whole and mask is None and not self.unroll:
            outputs, last, states = self._run_whole(steps_first, initial_state, training)
        else:
            outputs, last, states = self._run_steps(x, steps_first, initial_state, mask, training)
        result = last
        if self.return_sequences:
            turned = outputs
            if self.go_backwards and not self.keeps_time_order:
                turned = ops.flip(outputs, axis=0)
            rank = B.known_rank(turned, f"{type(self).__name__} '{self.name}'")
            result = B.op("Transpose", turned, perm=[1, 0, *range(2, rank)])
        return (result, *states) if self.return_state else result

    def _run_whole(
        self, x: Tensor, initial: Sequence[Tensor] | None, training: bool
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The outputs by time, the last one, and the last states; by ONNX's operator."""
        if training and self.cell.dropout:
            # One mask for all steps, of the shape of a step.
            mask = self.cell.dropped_inputs(ops.ones_like(ops.take(x, 0, axis=0)), training)
            x = ops.multiply(x, mask)
        outputs, states = self.cell.run_whole(x, initial, self.go_backwards)
        return outputs, states[0], states

    def _run_steps(
        self,
        x: Tensor,
        steps_first: Tensor,
        initial: Sequence[Tensor] | None,
        mask: Any,
        training: bool,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The same, step by step."""
        length = B.dim(x, 1)
        if not isinstance(length, int) or length == 0:
            raise refused(
                f"{type(self).__name__} '{self.name}' runs step by step (it has a mask, recurrent "
                "dropout, a cell of its own, or an activation that ONNX's operator lacks), so its "
                f"sequences' length must be known and not zero, unlike {format_shape(B.shape(x))}"
            )
        batch = ops.shape(x)[0]
        states = self.get_initial_state(batch) if initial is None else list(initial)
        options = {"training": training} if getattr(self.cell, "takes_training", False) else {}
        inputs = ops.unstack(steps_first)
        masks = self._masks(mask)
        outputs: list[Any] = [None] * length
        last: Any = None
        for t in reversed(range(length)) if self.go_backwards else range(length):
            output, following = self.cell(inputs[t], states, **options)
            following = list(following) if isinstance(following, (list, tuple)) else [following]
            shown = output
            if masks is not None:
                before = ops.zeros_like(output) if last is None else last
                shown = _chosen(masks[t], output, before)
                following = _chosen(masks[t], following, states)
                last = shown
                if self.zero_output_for_mask:
                    shown = _chosen(masks[t], output, ops.zeros_like(output))
            else:
                last = output
            outputs[t], states = shown, following
        return ops.stack(outputs), last, states

    def _masks(self, mask: Any) -> list[Tensor] | None:
        if mask is None:
            return None
        given = convert_to_tensor(mask)
        if B.rank(given) != 2:
            raise refused(
                f"{type(self).__name__} '{self.name}' takes a mask of shape (batch, time), not "
                f"{format_shape(B.shape(given))}"
            )
        return ops.unstack(ops.cast(given, "bool"), axis=1)


def _chosen(mask: Tensor, new: Any, old: Any) -> Any:
    """`new` where the mask (batch,) is true, else `old`; tensors or nested lists of them."""
    if isinstance(new, (list, tuple)):
        return [_chosen(mask, x, y) for x, y in zip(new, old, strict=True)]
    rank = B.known_rank(new, "a masked step")
    return ops.where(ops.expand_dims(mask, list(range(1, rank))), new, old)


#: The arguments of the layer; all others are its cell's.
_OF_RNN = (
    "return_sequences",
    "return_state",
    "go_backwards",
    "stateful",
    "unroll",
    "zero_output_for_mask",
    "name",
    "trainable",
    "activity_regularizer",
)


class _OfCell(RNN):
    """An RNN that makes its cell itself, of the arguments that the cell takes."""

    cell_type: type[GatedCell]

    def __init__(self, units: int, *args: Any, **kwargs: Any) -> None:
        own = {key: kwargs.pop(key) for key in _OF_RNN if key in kwargs}
        if "dtype" in kwargs:
            own["dtype"] = kwargs["dtype"]
        super().__init__(self.cell_type(units, *args, **kwargs), **own)

    @property
    def units(self) -> int:
        return int(self.cell.units)


class SimpleRNN(_OfCell):
    """A fully connected recurrent layer; arguments and weights as `SimpleRNNCell` and `RNN`."""

    cell_type = SimpleRNNCell


class GRU(_OfCell):
    """A gated recurrent unit; arguments and weights as `GRUCell` and `RNN`."""

    cell_type = GRUCell


class LSTM(_OfCell):
    """A long short-term memory; arguments and weights as `LSTMCell` and `RNN`."""

    cell_type = LSTMCell
