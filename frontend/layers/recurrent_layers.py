"""SimpleRNN, GRU and LSTM: recurrent layers that make their cells themselves."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from onnxtape.layers.recurrent import RNN
from onnxtape.layers.recurrent_base import RecurrentCell
from onnxtape.layers.recurrent_cells import GRUCell, LSTMCell, SimpleRNNCell
from onnxtape.naming import to_snake_case

#: What the layer takes for itself.
_OF_RNN = ("return_sequences", "return_state", "go_backwards", "stateful", "unroll")


class OfCell(RNN):
    """An RNN that makes its cell of those of its arguments that the cell takes."""

    cell_type: type[RecurrentCell]

    def __init__(self, given: Mapping[str, Any], **kwargs: Any) -> None:
        """See the subclasses.

        Args:
            given: all arguments of the subclass by their names.
            kwargs: further ones: `RNN`'s and `Layer`'s.
        """
        taken = inspect.signature(self.cell_type).parameters
        of_cell = {name: given[name] for name in taken if name in given and name != "kwargs"}
        # As in Keras, whatever cells there are elsewhere.
        of_cell["name"] = to_snake_case(self.cell_type.__name__)
        if "dtype" in kwargs:
            of_cell["dtype"] = kwargs["dtype"]
        super().__init__(
            self.cell_type(**of_cell),
            **{name: given[name] for name in _OF_RNN},
            activity_regularizer=given["activity_regularizer"],
            **kwargs,
        )


class _OfUnits(OfCell):
    """One of so many units."""

    @property
    def units(self) -> int:
        return int(self.cell.units)


class SimpleRNN(_OfUnits):
    """A fully connected recurrent layer; arguments and weights as `SimpleRNNCell` and `RNN`."""

    cell_type = SimpleRNNCell

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals(), **kwargs)


class GRU(_OfUnits):
    """A gated recurrent unit; arguments and weights as `GRUCell` and `RNN`.

    `use_cudnn` has no meaning here.
    """

    cell_type = GRUCell

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        reset_after: bool = True,
        use_cudnn: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(locals(), **kwargs)


class LSTM(_OfUnits):
    """A long short-term memory; arguments and weights as `LSTMCell` and `RNN`.

    `use_cudnn` has no meaning here.
    """

    cell_type = LSTMCell

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        use_cudnn: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(locals(), **kwargs)
