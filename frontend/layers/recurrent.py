"""RNN: any cell, run over a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnxtape import context, nest, ops
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.layers.layer import Layer
from onnxtape.layers.recurrent_base import GatedCell, RecurrentCell, initial_state
from onnxtape.layers.recurrent_cells import StackedRNNCells
from onnxtape.ops.axes import refused
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class RNN(Layer):
    """A cell, or several on top of each other, run over a sequence.

    Args:
        cell: a layer whose `call(inputs, states)` returns an output and the next states, with the
            attributes `state_size` and `output_size`; or a list of them.
        return_sequences: return the outputs of all steps instead of the last one's.
        return_state: return the last states as well.
        go_backwards: start at the end; the outputs come in that order.
        stateful: start each call with the states that the last one ended with, which are variables
            (`states`); the batch size is fixed then.
        unroll: write all steps out; the length must be known.
        zero_output_for_mask: where a step is masked, the output is zero, not the previous one.

    Shapes: (batch, time, ...) to (batch, output_size) or (batch, time, output_size); a mask is
    boolean, (batch, time). SimpleRNN, GRU and LSTM without mask and recurrent dropout are one ONNX
    operator. All else runs step by step, written out where the length is known, else in a Scan.
    """

    supports_masking = True

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
        #: Variables of the states, if `stateful`; None before the first call.
        self.states: Any = None
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

    def _create_states(self, batch_size: Any) -> None:
        if not isinstance(batch_size, int):
            raise refused(
                f"{type(self).__name__} '{self.name}' is stateful, so its batch size must be "
                "known, as in ot.Input(batch_shape=(batch, time, features))"
            )
        with context.initializing():
            zeros = self.get_initial_state(batch_size)
        self.states = nest.map_structure(
            lambda state: Variable(state, trainable=False, name="state"), zeros
        )
        for variable in nest.flatten(self.states):
            variable.is_weight = False
            variable.path = f"{self.name}/state"

    def _check_batch(self, x: Tensor) -> None:
        """Refuse another batch size than that of the states, which might be broadcast."""
        kept = nest.flatten(self.states)[0].shape[0]
        if B.dim(x, 0) != kept:
            raise refused(
                f"{type(self).__name__} '{self.name}' is stateful and keeps the states of {kept} "
                f"sequences, but got inputs of shape {format_shape(B.shape(x))}: let all batches "
                f"have {kept} (drop_remainder=True in Dataset.batch, batch_size={kept} in fit and "
                f"predict, {kept} in an input_signature too)"
            )

    def reset_state(self) -> None:
        """Start the next call with zeros, if the layer is stateful."""
        for variable in nest.flatten(self.states or []):
            variable.assign(ops.zeros_like(variable))

    def reset_states(self) -> None:
        """`reset_state` under Keras's older name."""
        self.reset_state()

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """That of the inputs, where all steps are returned."""
        if isinstance(mask, (list, tuple)):
            mask = mask[0]
        output = mask if self.return_sequences else None
        states = nest.flatten(self.cell.state_size) if self.return_state else []
        return [output, *[None for _ in states]]

    def get_initial_state(self, batch_size: Any) -> list[Any]:
        """The cell's states of zeros for so many sequences."""
        return initial_state(self.cell, batch_size)

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
        if self.stateful:
            if self.states is None:
                self._create_states(B.dim(x, 0))
            self._check_batch(x)
            if initial_state is None:
                initial_state = nest.map_structure(lambda v: v.value, self.states)
        if isinstance(self.cell, RecurrentCell):
            self.cell.reset_dropout()
        steps_first = B.op("Transpose", x, perm=[1, 0, *range(2, rank)])
        whole = isinstance(self.cell, GatedCell) and self.cell.can_run_whole(training)
        if whole and mask is None and not self.unroll:
            outputs, last, states = self._run_whole(steps_first, initial_state, training)
        else:
            outputs, last, states = self._run_steps(x, steps_first, initial_state, mask, training)
        if self.stateful:
            pairs = zip(nest.flatten(self.states), nest.flatten(states), strict=True)
            for variable, state in pairs:
                variable.assign(state)
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
        if length == 0 or (self.unroll and not isinstance(length, int)):
            raise refused(
                f"{type(self).__name__} '{self.name}' takes sequences of at least one step, with "
                f"unroll=True of a known number, not {format_shape(B.shape(x))}"
            )
        states = self.get_initial_state(ops.shape(x)[0]) if initial is None else list(initial)
        masks = self._mask_steps(mask)
        if isinstance(length, int):
            inputs = ops.unstack(steps_first)
            kept = [None] * length if masks is None else ops.unstack(masks)
            carry: Any = (None, states)
            outputs: list[Any] = [None] * length
            for t in reversed(range(length)) if self.go_backwards else range(length):
                carry, outputs[t] = self._step(carry, training, inputs[t], kept[t])
            return ops.stack(outputs), *carry
        if training and isinstance(self.cell, RecurrentCell):
            self.cell.draw_dropout(ops.shape(x)[0])
        # What the first step would have before it, had it one.
        (before, _), _ = self._step((None, states), False, steps_first[0])
        carry, stacked = ops.scan(
            lambda carry, at: self._step(carry, training, *at),
            (ops.zeros_like(before), states),
            [steps_first] if masks is None else [steps_first, masks],
            reverse=self.go_backwards,
        )
        return stacked, *carry

    def _step(self, carry: Any, training: bool, inputs: Any, mask: Any = None) -> tuple[Any, Any]:
        """One step.

        Args:
            carry: the output before it (None: there is none) and the states.
            mask: (batch,); None where there is none.

        Returns:
            The next carry, and what to return of this step.
        """
        last, states = carry
        options = {"training": training} if getattr(self.cell, "takes_training", False) else {}
        output, following = self.cell(inputs, states, **options)
        following = list(following) if isinstance(following, (list, tuple)) else [following]
        if mask is None:
            return (output, following), output
        zeros = ops.zeros_like(output)
        kept = _chosen(mask, output, zeros if last is None else last)
        shown = _chosen(mask, output, zeros) if self.zero_output_for_mask else kept
        return (kept, _chosen(mask, following, states)), shown

    def _mask_steps(self, mask: Any) -> Tensor | None:
        """The mask, (time, batch)."""
        if mask is None:
            return None
        given = convert_to_tensor(mask)
        if B.rank(given) != 2:
            raise refused(
                f"{type(self).__name__} '{self.name}' takes a mask of shape (batch, time), not "
                f"{format_shape(B.shape(given))}"
            )
        return ops.transpose(ops.cast(given, "bool"))


def _chosen(mask: Tensor, new: Any, old: Any) -> Any:
    """`new` where the mask (batch,) is true, else `old`; tensors or nested lists of them."""
    if isinstance(new, (list, tuple)):
        return [_chosen(mask, x, y) for x, y in zip(new, old, strict=True)]
    rank = B.known_rank(new, "a masked step")
    return ops.where(ops.expand_dims(mask, list(range(1, rank))), new, old)
