"""Control flow while `ot.function` traces: If, Loop and Scan nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from onnxtape import nest
from onnxtape.bodies import Body
from onnxtape.compiler.dims import Shape, same_shape
from onnxtape.engine import B
from onnxtape.ops.alike import as_tensors, check_alike
from onnxtape.ops.control_flow import one_step, run_steps
from onnxtape.tensor import SymbolicDim, Tensor
from onnxtape.variable import Variable

_INT64 = np.dtype(np.int64)
_BOOL = np.dtype(np.bool_)


def traced_cond(
    pred: Tensor,
    true_fn: Callable[..., Any],
    false_fn: Callable[..., Any],
    operands: Sequence[Any],
) -> Any:
    """`control_flow.cond` as an If."""
    captured: dict[Any, Tensor] = {}
    bodies: list[Body] = []
    trees: list[Any] = []
    for name, function in (("then", true_fn), ("else", false_fn)):
        body = Body(name, captured)
        with body.tracing():
            returned = function(*operands)
            if trees:
                names = ("true_fn returned", "false_fn")
                returned = check_alike("the branches of cond", trees[0], returned, names)
            trees.append(as_tensors(returned))
        bodies.append(body)
    variables = list(dict.fromkeys(v for body in bodies for v in body.assigned()))
    results = _tensors(trees[0])
    if not results and not variables:
        return trees[0]
    for body, tree in zip(bodies, trees, strict=True):
        body.close([], [*_tensors(tree), *variables])
    branches = {"then_branch": bodies[0].graph, "else_branch": bodies[1].graph}
    outputs = B.emit_with_subgraphs(
        "If", [pred], branches, len(results) + len(variables), list(captured.values())
    )
    _assign(variables, outputs[len(results) :])
    return _packed(trees[0], outputs)


def traced_loop(
    what: str,
    trips: Tensor | None,
    condition: Tensor | None,
    step: Callable[[Tensor, Any], Any],
    test: Callable[[Any], Tensor] | None,
    initial: Any,
) -> Any:
    """`control_flow.while_loop` and `fori_loop` as a Loop.

    Args:
        trips: how often at most, an int64 scalar.
        condition: whether the first iteration runs.
        step: takes the iteration's number, an int64 scalar, and the values; returns the next ones.
        test: says of the new values whether another iteration runs.
        initial: the values.
    """
    body = Body(what)
    number = body.placeholder("iteration", _INT64, ())
    going = body.placeholder("going", _BOOL, ())
    states = _placeholders(body, initial)
    with body.tracing():
        made = step(number, _packed(initial, states))
        made = check_alike(f"the loop variables of {what}", initial, made)
        results = _of_shapes(_tensors(made), states)
        again = going if test is None else test(_packed(initial, results))
    variables = body.assigned()
    body.close([number, going, *states, *variables], [again, *results, *variables])
    operands = [
        trips,
        B.constant(np.asarray(True)) if condition is None else condition,
        *_tensors(initial),
        *map(body.value_outside, variables),
    ]
    outputs = B.emit_with_subgraphs(
        "Loop",
        operands,
        {"body": body.graph},
        len(results) + len(variables),
        list(body.captured.values()),
    )
    _assign(variables, outputs[len(results) :])
    return _packed(initial, outputs)


def traced_scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    xs: Any,
    count: int | SymbolicDim,
    reverse: bool,
    unroll: int,
) -> tuple[Any, Any]:
    """`control_flow.scan` as a Scan.

    With `unroll`, its iterations take blocks of steps, and the steps that are left over, those at
    the end of `xs`, stand beside it.
    """
    if unroll == 1:
        return _scan(f, carry, xs, count, reverse)
    if not isinstance(count, int):
        raise ValueError("scan: unroll needs a length that is known while tracing")
    blocks, rest = divmod(count, unroll)
    whole, last = blocks * unroll, None

    def part(start: int, end: int) -> Any:
        return None if xs is None else nest.map_structure(lambda x: x[start:end], xs)

    if rest and reverse:
        carry, last = run_steps(f, carry, part(whole, count), rest, reverse)

    def block(x: Tensor) -> Tensor:
        tail = B.op("Slice", B.shape_tensor(x), [1], [2**31])
        return B.op("Reshape", x, B.op("Concat", [blocks, unroll], tail, axis=0), allowzero=1)

    grouped = part(0, whole) if xs is None else nest.map_structure(block, part(0, whole))
    carry, ys = _scan(
        lambda carry, x: run_steps(f, carry, x, unroll, reverse), carry, grouped, blocks, reverse
    )

    def flat(y: Tensor) -> Tensor:
        tail = B.op("Slice", B.shape_tensor(y), [2], [2**31])
        return B.op("Reshape", y, B.op("Concat", [whole], tail, axis=0), allowzero=1)

    leaves = [None if y is None else flat(y) for y in nest.flatten(ys)]
    if rest and not reverse:
        carry, last = run_steps(f, carry, part(whole, count), rest, reverse)
    if rest:
        leaves = [
            None if y is None else B.op("Concat", y, z, axis=0)
            for y, z in zip(leaves, nest.flatten(last), strict=True)
        ]
    return carry, nest.pack_like(ys, leaves)


def _scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    xs: Any,
    count: int | SymbolicDim,
    reverse: bool,
) -> tuple[Any, Any]:
    # Without xs, something has to tell how many steps there are.
    scanned = _tensors(xs) if xs is not None else [B.constant(np.arange(count))]  # type: ignore[arg-type]
    body = Body("scan")
    states = _placeholders(body, carry)
    slices = [body.placeholder("slice", x.dtype, _of_rows(B.shape(x))) for x in scanned]
    with body.tracing():
        x = None if xs is None else _packed(xs, slices)
        last, y = one_step(f, _packed(carry, states), x)
        results = _of_shapes(_tensors(last), states)
        made = _tensors(y)
    variables = body.assigned()
    body.close([*states, *variables, *slices], [*results, *variables, *made])
    direction = int(reverse)
    attributes: dict[str, Any] = {
        "body": body.graph,
        "num_scan_inputs": len(scanned),
        "scan_input_directions": [direction] * len(scanned),
    }
    if made:
        attributes["scan_output_directions"] = [direction] * len(made)
    fixed = len(results) + len(variables)
    outputs = B.emit_with_subgraphs(
        "Scan",
        [*_tensors(carry), *map(body.value_outside, variables), *scanned],
        attributes,
        fixed + len(made),
        list(body.captured.values()),
    )
    _assign(variables, outputs[len(results) : fixed])
    return _packed(carry, outputs), _packed(y, outputs[fixed:])


def _placeholders(body: Body, tree: Any) -> list[Tensor]:
    return [body.placeholder("state", x.dtype, B.shape(x)) for x in _tensors(tree)]


def _of_rows(shape: Shape | None) -> Shape | None:
    return None if shape is None else shape[1:]


def _of_shapes(values: Sequence[Tensor], states: Sequence[Tensor]) -> list[Tensor]:
    """The values with the states' shapes; where that is not known now, the runtime checks it."""
    return [
        x
        if same_shape(B.shape(x), B.shape(state))
        else B.refine_shape(B.op("Reshape", x, B.shape_tensor(state), allowzero=1), B.shape(state))
        for x, state in zip(values, states, strict=True)
    ]


def _assign(variables: Sequence[Variable], values: Sequence[Tensor]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(B.refine_shape(value, variable.shape))


def _tensors(tree: Any) -> list[Tensor]:
    return [x for x in nest.flatten(tree) if x is not None]


def _packed(tree: Any, tensors: Sequence[Tensor]) -> Any:
    """The tree with its tensors replaced, None where it holds None."""
    given = iter(tensors)
    return nest.pack_like(tree, [None if x is None else next(given) for x in nest.flatten(tree)])
