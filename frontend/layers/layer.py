"""The base of layers and models."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxtape import constraints, context, initializers, masks, nest, regularizers
from onnxtape.compiler.dtypes import is_floating
from onnxtape.compiler.errors import located
from onnxtape.engine import B, convert_to_tensor
from onnxtape.layers.called import static_shape
from onnxtape.layers.graph_node import GraphNode
from onnxtape.layers.holder import Holder
from onnxtape.layers.making import Remade
from onnxtape.mixed_precision import DTypePolicy, get_policy
from onnxtape.naming import auto_name, to_snake_case
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable


class _CallState(threading.local):
    """What the layers that are being called know of each other."""

    def __init__(self) -> None:
        self.depth = 0
        self.training: bool | None = None


_calls = _CallState()


class Layer(Holder, Remade, GraphNode):
    """Something with weights that maps tensors to tensors.

    Subclasses create weights in `build(input_shape)` with `add_weight`, and compute in
    `call(inputs, ...)`. Layers, variables, metrics, random streams, and lists and dicts of them
    that are assigned to attributes belong to the layer.

    Args:
        name: by default the class's name in snake case, counted.
        trainable: whether its weights are.
        dtype: of its weights and of its computation, to which floating-point inputs are cast; or
            the policy (`ot.DTypePolicy`, or its name) that tells both. By default the policy in
            use, see `ot.set_mixed_precision`.
        activity_regularizer: a function of the outputs, whose value, divided by the batch size, is
            added to the losses.

    Attributes:
        supports_masking: whether the layer passes the mask of its input on (see `compute_mask`).
            A layer that does not warns when it gets one.
    """

    supports_masking: bool = False
    #: Whether a list of numbers is an array to it, as to Keras's layers for preprocessing.
    _takes_numbers = False
    _call_parameters: tuple[str, ...]
    _losses: list[Tensor]

    def __init__(
        self,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: DTypePolicy | npt.DTypeLike | None = None,
        activity_regularizer: Any = None,
    ) -> None:
        self.name = name or auto_name(to_snake_case(type(self).__name__))
        self.built = False
        self.dtype_policy = get_policy(dtype)
        self.activity_regularizer = regularizers.get(activity_regularizer)
        self._trainable = trainable
        self.__dict__["_losses"] = []
        parameters = inspect.signature(self.call).parameters
        self.__dict__["_call_parameters"] = tuple(parameters)
        training = parameters.get("training")
        self._call_takes_training = training is not None
        self._training_default = None
        if training is not None and training.default is not training.empty:
            self._training_default = training.default

    @property
    def compute_dtype(self) -> np.dtype[Any]:
        """What it computes in: of its inputs, once they are cast, and outputs."""
        return self.dtype_policy.compute_dtype

    @property
    def variable_dtype(self) -> np.dtype[Any]:
        """Of its weights."""
        return self.dtype_policy.variable_dtype

    @property
    def dtype(self) -> np.dtype[Any]:
        """`variable_dtype`, as in Keras."""
        return self.variable_dtype

    # Weights ------------------------------------------------------------------------------------

    def add_weight(
        self,
        shape: Sequence[int] = (),
        initializer: Any = None,
        dtype: npt.DTypeLike | None = None,
        trainable: bool = True,
        name: str | None = None,
        regularizer: Any = None,
        constraint: Any = None,
        autocast: bool = True,
    ) -> Variable:
        """Create a weight.

        Args:
            shape: its shape.
            initializer: a name, an `Initializer`, or a function of shape and dtype; by default
                "glorot_uniform" for floats of rank 1 and more, zeros otherwise.
            regularizer: a name, or a function of the weight whose value is added to the losses.
            constraint: a name, or a function that gives the weight's value after an update.
            autocast: whether the layer reads it in `compute_dtype` under mixed precision.
        """
        shape = tuple(int(d) for d in shape)
        chosen = np.dtype(dtype or self.dtype)
        if initializer is None:
            initializer = "glorot_uniform" if is_floating(chosen) and shape else "zeros"
        budget = context.state.weight_budget
        if budget is not None:
            budget.take(name or "weight", shape, chosen.itemsize)
            initializer = "zeros"
        make = initializers.get(initializer)
        variable = Variable(
            lambda: make(shape, dtype=chosen), trainable, name or "weight", dtype=chosen
        )
        scopes = context.state.layers
        path = scopes if scopes and scopes[-1] == self.name else [*scopes, self.name]
        variable.path = "/".join([*path, variable.name])
        variable.autocast = autocast
        variable.regularizer = regularizers.get(regularizer)  # type: ignore[attr-defined]
        variable.constraint = constraints.get(constraint)  # type: ignore[attr-defined]
        self.__dict__.setdefault("_own_weights", []).append(variable)
        return variable

    def add_variable(
        self,
        shape: Sequence[int],
        initializer: Any,
        dtype: npt.DTypeLike | None = None,
        trainable: bool = True,
        autocast: bool = True,
        regularizer: Any = None,
        constraint: Any = None,
        name: str | None = None,
    ) -> Variable:
        """`add_weight` by another name, with its arguments in another order, as in Keras."""
        return self.add_weight(
            shape, initializer, dtype, trainable, name, regularizer, constraint, autocast
        )

    @property
    def path(self) -> str | None:
        """The names of the layers that it was built in, and its own; None before it is built."""
        return (self.__dict__.get("_path") or self.name) if self.built else None

    @property
    def takes_training(self) -> bool:
        """Whether `call` has a `training` argument."""
        return self._call_takes_training

    # Losses -------------------------------------------------------------------------------------

    def add_loss(self, loss: Any) -> None:
        """Add scalar losses to this call's `losses`; use it inside `call`."""
        for value in nest.flatten(loss):
            self._losses.append(convert_to_tensor(value))

    @property
    def losses(self) -> list[Tensor]:
        """What `add_loss` and regularizers gave in the last call, sublayers included."""
        found = [loss for layer in self._flatten_layers() for loss in layer._losses]
        for variable in self.trainable_variables:
            regularizer = getattr(variable, "regularizer", None)
            if regularizer is not None:
                found.append(convert_to_tensor(regularizer(variable)))
        return found

    # Calling ------------------------------------------------------------------------------------

    def build(self, input_shape: Any) -> None:
        """Create the weights; the batch dimension of `input_shape` is None when it varies."""
        self.built = True

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Compute; subclasses write this."""
        raise NotImplementedError(f"{type(self).__name__} has no call method")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from onnxtape.functional import functional_context, is_functional

        if "_losses" not in self.__dict__:
            raise RuntimeError(
                f"{type(self).__name__}.__init__ must call super().__init__() before anything else"
            )
        if args and isinstance(args[0], list) and not self._takes_numbers:
            self._refuse_numbers(args[0])
        given = args, kwargs
        functional = is_functional(given)
        state = context.state
        inherited = _calls.training
        training = kwargs.get("training")
        if training is None:
            training = self._training_default if inherited is None else inherited
        with ExitStack() as stack:
            if functional:
                stack.enter_context(context.entered(functional_context()))
            args, kwargs = nest.map_structure(self._as_input, given)
            inner = {key: value for key, value in kwargs.items() if key != "training"}
            previous_mask = masks.fill_in(self._call_parameters, args, inner)
            if self._call_takes_training and training is not None:
                inner["training"] = training
            if _calls.depth == 0:
                for layer in self._flatten_layers():
                    layer.__dict__["_losses"] = []
            stack.enter_context(context.in_layer(self.name))
            if not self.built:
                self._build_for(args, kwargs)
            elif self._notes_every_call:
                self._note_inputs(args, kwargs)
            _calls.depth += 1
            _calls.training = training
            autocast, state.autocast = state.autocast, self.dtype_policy.autocast_dtype
            try:
                outputs = self.call(*args, **inner)
                if self.activity_regularizer is not None:
                    for output in nest.flatten(outputs):
                        self.add_loss(_per_sample(self.activity_regularizer(output), output))
            finally:
                _calls.depth -= 1
                _calls.training = inherited
                state.autocast = autocast
            if functional:
                outputs = self._remember(*given, outputs)
            elif self._output_shape is None:
                self._note_outputs(nest.map_structure(static_shape, outputs))
            masks.pass_on(self, args[0] if args else kwargs, outputs, previous_mask)
        return outputs

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The masks of the outputs: here that of `inputs`, the first argument of `call`.

        None where there is none.
        """
        return mask

    def _refuse_numbers(self, inputs: list[Any]) -> None:
        """A list is several inputs, so one of numbers is not an array, as in Keras."""
        leaves = nest.flatten(inputs)
        if leaves and all(isinstance(x, (int, float)) for x in leaves):
            raise TypeError(
                located(
                    f"{type(self).__name__} '{self.name}' takes tensors, and was given a list of "
                    'numbers, which is none: make one array of it, np.asarray(x, "float32"), '
                    "before it comes here (and before it is an argument of an ot.function)",
                    context.provenance(),
                )
            )

    def _as_input(self, x: Any) -> Any:
        """Arrays as tensors, floats in what the layer computes in; anything else as it is."""
        if isinstance(x, np.ndarray):
            x = convert_to_tensor(x)
        elif isinstance(x, Variable):
            x = x.value
        if isinstance(x, Tensor) and is_floating(x.dtype) and x.dtype != self.compute_dtype:
            return masks.attach(B.cast(x, self.compute_dtype), masks.mask_of(x))
        return x

    def _build_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = self._note_inputs(args, kwargs)
        self.__dict__["_path"] = "/".join(context.state.layers)
        self.build(nest.map_structure(static_shape, first))
        self.built = True

    def __getstate__(self) -> dict[str, Any]:
        # For copies, also in other processes, where the functional API's tensors are not.
        gone: dict[str, Any] = {"_first_call": None, "_losses": []}
        return {name: gone.get(name, x) for name, x in self.__dict__.items()}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}, built={self.built}>"


def _per_sample(loss: Any, output: Tensor) -> Tensor:
    """An activity's loss divided by the batch size."""
    total = convert_to_tensor(loss)
    if B.known_rank(output, "activity_regularizer") == 0:
        return total
    count = B.cast(B.op("Squeeze", B.dim_tensor(output, 0)), total.dtype)
    return B.op("Div", total, B.op("Max", count, 1.0))
