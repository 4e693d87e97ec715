"""Layers around layers that see sequences."""

from __future__ import annotations

from typing import Any

from onnxtape import context, nest, ops
from onnxtape.compiler.dims import format_shape
from onnxtape.engine import B, convert_to_tensor
from onnxtape.layers.batch_normalization import BatchNormalization
from onnxtape.layers.layer import Layer
from onnxtape.layers.recurrent import RNN
from onnxtape.ops.axes import refused

_MERGE_MODES = ("concat", "sum", "ave", "mul", None)


class Bidirectional(Layer):
    """A recurrent layer in both directions of time.

    Args:
        layer: an `RNN`. Two like it are made; its own weights are not used.
        weights: the arrays to begin with.
        merge_mode: how the two outputs become one: "concat" (along the last axis), "sum", "ave",
            "mul", or None, which gives both.
        backward_layer: another layer for the way back, with `go_backwards=True`.

    With `return_state`, the forward states and then the backward ones follow the output.
    """

    supports_masking = True

    def __init__(
        self,
        layer: Any,
        merge_mode: str | None = "concat",
        weights: Any = None,
        backward_layer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._initial_weights = weights
        for given in (layer, backward_layer):
            if given is not None and not isinstance(given, RNN):
                raise ValueError(f"Bidirectional takes a recurrent layer, not {given!r}")
        if merge_mode not in _MERGE_MODES:
            raise ValueError(
                f"Bidirectional: merge_mode is one of {', '.join(map(repr, _MERGE_MODES))}, "
                f"not {merge_mode!r}"
            )
        if backward_layer is not None:
            if backward_layer.go_backwards == layer.go_backwards:
                raise ValueError(
                    "Bidirectional: one of layer and backward_layer has go_backwards=True, "
                    "the other has not"
                )
            for name in ("return_sequences", "return_state"):
                if getattr(layer, name) != getattr(backward_layer, name):
                    raise ValueError(f"Bidirectional: its layers differ in {name}")
        self.forward_layer = layer.remade(name=f"forward_{layer.name.removeprefix('forward_')}")
        self.backward_layer = backward_layer or layer.remade(
            name=f"backward_{layer.name.removeprefix('backward_')}",
            go_backwards=not layer.go_backwards,
        )
        for one in (self.forward_layer, self.backward_layer):
            one.zero_output_for_mask = one.return_sequences
        # Outputs of one step stand side by side, so nothing needs to be turned around.
        self.backward_layer.keeps_time_order = True
        self.merge_mode = merge_mode
        self.return_sequences = layer.return_sequences
        self.return_state = layer.return_state

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """That of the inputs, where all steps are returned."""
        if isinstance(mask, (list, tuple)):
            mask = mask[0]
        output = mask if self.return_sequences else None
        outputs = [output] if self.merge_mode else [output, output]
        states = nest.flatten(self.forward_layer.cell.state_size) if self.return_state else []
        return [*outputs, *[None for _ in 2 * states]]

    def reset_state(self) -> None:
        """Start the next call with zeros, if the layers are stateful."""
        self.forward_layer.reset_state()
        self.backward_layer.reset_state()

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for layer in (self.forward_layer, self.backward_layer):
            if not layer.built:
                with context.in_layer(layer.name):
                    layer.build(input_shape)
        self.built = True
        if self._initial_weights is not None:
            self.set_weights(self._initial_weights)

    def call(
        self,
        sequences: Any,
        initial_state: Any = None,
        mask: Any = None,
        training: bool = False,
    ) -> Any:
        initial: list[Any] = [None, None]
        if initial_state is not None:
            half = len(initial_state) // 2
            initial = [list(initial_state[:half]), list(initial_state[half:])]
        made = [
            layer(sequences, initial_state=states, mask=mask, training=training)
            for layer, states in zip(
                (self.forward_layer, self.backward_layer), initial, strict=True
            )
        ]
        states: tuple[Any, ...] = ()
        if self.return_state:
            states = (*made[0][1:], *made[1][1:])
            made = [one[0] for one in made]
        merged = self._merged(*made)
        if not self.return_state:
            return merged
        return (*merged, *states) if self.merge_mode is None else (merged, *states)

    def _merged(self, forward: Any, backward: Any) -> Any:
        if self.merge_mode is None:
            return forward, backward
        if self.merge_mode == "concat":
            return ops.concatenate([forward, backward], axis=-1)
        if self.merge_mode == "mul":
            return ops.multiply(forward, backward)
        total = ops.add(forward, backward)
        return ops.divide(total, 2.0) if self.merge_mode == "ave" else total


class TimeDistributed(Layer):
    """A layer applied to every time step by itself.

    Args:
        layer: takes (batch, ...); all steps go through it as one large batch, and so does a mask
            (batch, time, ...), if the layer takes one. A layer with batch normalization inside gets
            one step after the other, as each step has statistics of its own.

    Shapes: (batch, time, ...) to (batch, time, ...).
    """

    supports_masking = True

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(layer, Layer):
            raise ValueError(f"TimeDistributed takes a layer, not {layer!r}")
        self.layer = layer

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) < 3:
            raise refused(
                f"TimeDistributed '{self.name}' needs inputs of shape (batch, time, ...), not "
                f"{format_shape(input_shape)}"
            )
        if not self.layer.built:
            with context.in_layer(self.layer.name):
                self.layer.build((None, *input_shape[2:]))
                self.layer.built = True
        self.built = True

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        x = convert_to_tensor(inputs)
        rank = B.known_rank(x, f"TimeDistributed '{self.name}'")
        if rank < 3:
            raise refused(
                f"TimeDistributed '{self.name}' needs inputs of shape (batch, time, ...), not "
                f"{format_shape(B.shape(x))}"
            )
        options: dict[str, Any] = {"training": training} if self.layer.takes_training else {}
        takes_mask = mask is not None and "mask" in self.layer._call_parameters
        length = B.dim(x, 1)
        if isinstance(length, int) and _looks_across_the_batch(self.layer):
            steps = [
                self.layer(x[:, i], **options, **({"mask": mask[:, i]} if takes_mask else {}))
                for i in range(length)
            ]
            return ops.stack(steps, axis=1)
        sizes = ops.shape(x)
        if takes_mask:
            options["mask"] = ops.reshape(mask, (-1, *ops.shape(mask)[2:]))
        made = self.layer(ops.reshape(x, (-1, *sizes[2:])), **options)
        return ops.reshape(made, (*sizes[:2], *ops.shape(made)[1:]))


def _looks_across_the_batch(layer: Layer) -> bool:
    """Whether what the layer makes of a sample depends on those beside it."""
    return any(isinstance(inner, BatchNormalization) for inner in layer._flatten_layers())
