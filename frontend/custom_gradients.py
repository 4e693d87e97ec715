"""Functions whose gradient is not that of the operations in them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from onnxtape import context, nest
from onnxtape.compiler.dims import format_shape
from onnxtape.compiler.dtypes import is_floating
from onnxtape.compiler.errors import located
from onnxtape.engine import B, convert_to_tensor
from onnxtape.errors import GradientError
from onnxtape.ops.axes import may_equal
from onnxtape.tape import GradientTape
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable

__all__ = ["custom_gradient"]


def custom_gradient(f: Callable[..., Any]) -> Callable[..., Any]:
    """A function with a gradient of its own.

    Args:
        f: takes tensors, in any nested structures, and returns the pair (result, grad).
            `grad(*upstream)` takes one gradient per tensor of the result and returns one per
            positional argument (None for zero), or the gradient itself if there is one.
            If `f` reads trainable variables, `grad` must take the keyword argument `variables`, a
            list of them, and return a pair: gradients by the arguments, and a list by the
            variables. Keyword arguments of `f` carry no gradient.

    Returns:
        A function that gives `f`'s result. It can be differentiated twice where `grad` is made of
        differentiable operations.

    Raises:
        TypeError: (from the function made) `f` does not return a pair with a function.
        GradientError: `f` reads trainable variables, and `grad` does not take `variables`; or
            `grad` returned a wrong number of gradients, or one of a wrong shape.

    Example:
        @ot.custom_gradient
        def log1pexp(x):
            e = ops.exp(x)

            def grad(upstream):
                return upstream * (1 - 1 / (1 + e))

            return ops.log(1 + e), grad
    """
    name = getattr(f, "__name__", type(f).__name__)

    @functools.wraps(f)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        leaves = [as_tensor(leaf) for leaf in nest.flatten(args)]
        inputs = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        symbolic = context.state.symbolic
        if symbolic is not None and symbolic.hidden_tapes:
            raise GradientError(
                located(
                    f"custom_gradient: {name} is called in a branch or in the body of a loop that "
                    "a GradientTape records, which differentiates the operations there and would "
                    "pass its gradient by; call it outside, or unroll the loop in Python",
                    context.provenance(),
                )
            )
        reading = GradientTape()
        # Recorded as ever: what `grad` uses of it depends on the arguments.
        with reading:
            returned = f(*nest.pack_like(args, leaves), **kwargs)
        if not isinstance(returned, tuple) or len(returned) != 2 or not callable(returned[1]):
            raise TypeError(
                f"custom_gradient: {name} must return a pair (result, grad function), not "
                f"{type(returned).__name__}"
            )
        result, grad = returned
        variables = list(reading.watched_variables())
        if variables and "variables" not in _parameters(grad):
            raise GradientError(
                located(
                    f"custom_gradient: {name} reads {', '.join(v.path for v in variables)}, but "
                    "its grad function takes no argument 'variables', so their gradients would be "
                    "lost; write def grad(*upstream, variables=None) and return a pair (gradients "
                    "by the arguments, gradients by the variables), or pass them as arguments",
                    context.provenance(),
                )
            )

        def rule(_: Any, record: Any, *upstream: Any) -> list[Any]:
            whole = [
                B.full_like(output, 0.0) if g is None else g
                for output, g in zip(record.outputs, upstream, strict=True)
            ]
            if not variables:
                return _checked(name, "argument", grad(*whole), leaves)
            found = grad(*whole, variables=variables)
            if not isinstance(found, tuple) or len(found) != 2:
                raise GradientError(
                    f"custom_gradient: the grad function of {name} must return a pair (gradients "
                    "by the arguments, gradients by the variables)"
                )
            values = [v.value for v in variables]
            return [
                *_checked(name, "argument", found[0], leaves),
                *_checked(name, "variable", found[1], values),
            ]

        return recorded(name, [*inputs, *(v.value for v in variables)], result, rule)

    return wrapper


def recorded(
    name: str, inputs: Sequence[Tensor], result: Any, rule: Callable[..., Sequence[Any]]
) -> Any:
    """`result`, as made from `inputs` in one step whose gradient is `rule`, on every tape."""
    tapes = context.state.tapes
    with unrecorded():
        # A result may be an input as it is; the tapes tell tensors apart by identity.
        outputs = [B.op("Identity", convert_to_tensor(leaf)) for leaf in nest.flatten(result)]
    for tape in tapes:
        tape._record(name, inputs, {}, outputs, rule)
    return nest.pack_like(result, outputs)


@contextmanager
def unrecorded() -> Iterator[None]:
    """What happens inside is nothing to the tapes outside."""
    around = context.state.tapes
    context.state.tapes = []
    try:
        yield
    finally:
        context.state.tapes = around


def as_tensor(leaf: Any) -> Any:
    """Arrays and variables as tensors; anything else, numbers of Python too, as it is."""
    if isinstance(leaf, Variable) or hasattr(leaf, "__array__"):
        return convert_to_tensor(leaf)
    return leaf


def _parameters(function: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # a builtin without a signature
        return []
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return ["variables"]
    return list(parameters)


def _checked(name: str, kind: str, found: Any, sources: Sequence[Any]) -> list[Tensor | None]:
    """One gradient per source that is a tensor, of its shape and dtype."""
    gradients = nest.flatten(found) if isinstance(found, (list, tuple, dict)) else [found]
    if len(gradients) != len(sources):
        raise GradientError(
            f"custom_gradient: the grad function of {name} returned {len(gradients)} gradients "
            f"for {len(sources)} {kind}s"
        )
    checked: list[Tensor | None] = []
    for i, (gradient, source) in enumerate(zip(gradients, sources, strict=True)):
        if not isinstance(source, Tensor):
            continue
        if gradient is None or not is_floating(source.dtype):
            checked.append(None)
            continue
        tensor = convert_to_tensor(gradient, source.dtype)
        if not may_equal(B.shape(tensor), B.shape(source)):
            raise GradientError(
                f"custom_gradient: the grad function of {name} returned a gradient of shape "
                f"{format_shape(B.shape(tensor))} for {kind} {i}, which has shape "
                f"{format_shape(B.shape(source))}"
            )
        checked.append(tensor)
    return checked
