"""Functions of functions: grad, value_and_grad, vjp, jvp, jacobian, hessian.

Arguments may be nested structures; their leaves become tensors. Everything works eagerly, inside
`ot.function`, under an outer `GradientTape`, and on the result of another transform.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from onnxtape import nest
from onnxtape.compiler.dims import format_shape
from onnxtape.compiler.dtypes import is_floating
from onnxtape.engine import B, convert_to_tensor
from onnxtape.errors import GradientError
from onnxtape.ops.axes import may_equal, refused
from onnxtape.tape import GradientTape
from onnxtape.tensor import Tensor

__all__ = ["grad", "hessian", "jacobian", "jvp", "value_and_grad", "vjp"]

Function = Callable[..., Any]


def grad(f: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
    """A function that gives the gradient of `f`'s scalar result.

    Args:
        f: returns a floating-point scalar; with `has_aux`, a pair of it and anything else.
        argnums: the positional argument to differentiate by, or several of them.
        has_aux: return the pair (gradient, the other thing).

    Returns:
        A function of `f`'s arguments. It returns the gradient in the structure of the argument, or
        a tuple of them if `argnums` is a sequence; zeros where `f` does not depend on an argument.

    Raises:
        GradientError: (from the function made) the result is not a floating-point scalar, or an
            operator on the way has no gradient.
        TypeError: an argument to differentiate by is not floating-point.
        ValueError: `f` is called with fewer positional arguments than `argnums` names.
    """
    both = value_and_grad(f, argnums, has_aux)

    @functools.wraps(f)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, gradients = both(*args, **kwargs)
        return (gradients, value[1]) if has_aux else gradients

    return gradient


def value_and_grad(
    f: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Function:
    """Like `grad`; the function made returns the pair (`f`'s result, gradient)."""

    @functools.wraps(f)
    def value_and_gradient(*args: Any, **kwargs: Any) -> Any:
        tape, args, chosen = _watched(args, argnums, "grad")
        with tape:
            result = f(*args, **kwargs)
        value = result[0] if has_aux else result
        target = value if isinstance(value, Tensor) else convert_to_tensor(value)
        if not may_equal(B.shape(target), ()) or not is_floating(target.dtype):
            raise GradientError(
                f"grad needs a function that returns a floating-point scalar, but "
                f"{_name(f)} returned {target.dtype} {format_shape(B.shape(target))}; reduce it "
                "with ops.sum or ops.mean, or use ot.vjp or ot.jacobian"
            )
        return result, tape.gradient(target, chosen, unconnected_gradients="zero")

    return value_and_gradient


def vjp(f: Function, *primals: Any) -> tuple[Any, Function]:
    """`f(*primals)`, and the function from cotangents of its result to cotangents of `primals`.

    Args:
        primals: floating-point tensors, in any nested structures.

    Returns:
        The pair (result, pullback). `pullback(cotangents)` takes the result's structure and gives
        a tuple with one structure per argument; it may be called any number of times.

    Raises:
        TypeError: an argument is not floating-point.
    """
    tape, args, chosen = _watched(primals, range(len(primals)), "vjp")
    with tape:
        result = f(*args)

    def pullback(cotangents: Any) -> tuple[Any, ...]:
        found = tape.gradient(result, chosen, cotangents, unconnected_gradients="zero")
        return tuple(found)

    return result, pullback


def jvp(f: Function, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """`f(*primals)` and its directional derivative along `tangents`.

    The product of a Jacobian and a vector, made of two vector-Jacobian products: what the reverse
    pass computes is linear in its cotangent, and its own reverse pass is the forward one.

    Args:
        primals: the arguments: floating-point tensors, in any nested structures.
        tangents: of `primals`' structures and shapes.

    Returns:
        The pair (result, tangent), of one structure.

    Raises:
        TypeError: an argument is not floating-point, or is not a sequence of arguments.
        ShapeError: a tangent of another shape than its primal's.
        ValueError: tangents of another structure than the primals'.
    """
    if not isinstance(primals, (list, tuple)) or not isinstance(tangents, (list, tuple)):
        raise TypeError(
            "jvp takes a tuple of arguments and a tuple of tangents: jvp(f, (x,), (t,))"
        )
    if nest.structure(tuple(primals)) != nest.structure(tuple(tangents)):
        raise ValueError("jvp needs tangents of the same structure as the primals")
    tape, args, chosen = _watched(tuple(primals), range(len(primals)), "jvp")
    sources = nest.flatten(chosen)
    directions = []
    for source, given in zip(sources, nest.flatten(tuple(tangents)), strict=True):
        direction = convert_to_tensor(given, source.dtype)
        if not may_equal(B.shape(direction), B.shape(source)):
            raise refused(
                f"a tangent has shape {format_shape(B.shape(direction))}, its primal "
                f"{format_shape(B.shape(source))}"
            )
        directions.append(direction)
    with tape:
        result = f(*args)
        targets = [convert_to_tensor(leaf) for leaf in nest.flatten(result)]
    transposed = GradientTape(persistent=True, watch_accessed_variables=False)
    with transposed:
        cotangents = [B.full_like(target, 0.0) for target in targets]
        transposed.watch(cotangents)
        linear = tape.gradient(targets, sources, cotangents)
    pairs = [(g, d) for g, d in zip(linear, directions, strict=True) if g is not None]
    found = transposed.gradient(
        [g for g, _ in pairs], cotangents, [d for _, d in pairs], unconnected_gradients="zero"
    )
    return nest.pack_like(result, targets), nest.pack_like(result, found)


def jacobian(f: Function, argnums: int | Sequence[int] = 0) -> Function:
    """A function that gives the Jacobian of `f`.

    Args:
        f: returns a floating-point tensor, or a nested structure of them.
        argnums: the positional argument to differentiate by, or several of them.

    Returns:
        A function of `f`'s arguments. For each tensor of the result (in its structure) it gives,
        in the structure of the argument, a tensor of shape `result.shape + argument.shape`; with a
        sequence of `argnums`, a tuple over them.
    """

    @functools.wraps(f)
    def jacobian_of_f(*args: Any, **kwargs: Any) -> Any:
        tape, args, chosen = _watched(args, argnums, "jacobian")
        with tape:
            result = f(*args, **kwargs)
        return nest.map_structure(
            lambda leaf: tape.jacobian(
                convert_to_tensor(leaf), chosen, unconnected_gradients="zero"
            ),
            result,
        )

    return jacobian_of_f


def hessian(f: Function, argnums: int | Sequence[int] = 0) -> Function:
    """A function that gives the matrix of second derivatives of `f`'s scalar result.

    Args:
        f: returns a floating-point scalar.
        argnums: the positional argument to differentiate by, or several of them.

    Returns:
        A function of `f`'s arguments that gives, for an argument of shape s, a tensor of shape
        s + s; for structures of arguments, a structure of structures.
    """
    return jacobian(grad(f, argnums), argnums)


def _watched(
    args: tuple[Any, ...], argnums: int | Sequence[int], transform: str
) -> tuple[GradientTape, tuple[Any, ...], Any]:
    """A tape that watches the chosen arguments, all arguments with those as tensors of their own,
    and the chosen ones: one structure, or a list of them if `argnums` is a sequence."""
    places = [argnums] if isinstance(argnums, int) else list(argnums)
    count = len(args)
    if any(not -count <= place < count for place in places):
        raise ValueError(
            f"{transform} is to differentiate by positional argument {max(places)}, but the "
            f"function was called with {count}"
        )
    tape = GradientTape(persistent=True, watch_accessed_variables=False)
    fresh = list(args)
    for place in places:
        leaves = [_own(leaf, transform) for leaf in nest.flatten(args[place])]
        tape.watch(leaves)
        fresh[place] = nest.pack_like(args[place], leaves)
    chosen = [fresh[place] for place in places]
    return tape, tuple(fresh), chosen[0] if isinstance(argnums, int) else tuple(chosen)


def _own(leaf: Any, transform: str) -> Tensor:
    """The leaf as a tensor that is nobody else's: one tensor may be two arguments."""
    tensor = convert_to_tensor(leaf)
    if not is_floating(tensor.dtype):
        raise TypeError(
            f"{transform} differentiates by floating-point arguments, not {tensor.dtype}; cast it, "
            "or name other arguments in argnums"
        )
    return B.op("Identity", tensor)


def _name(f: Function) -> str:
    return f"'{getattr(f, '__name__', type(f).__name__)}'"
