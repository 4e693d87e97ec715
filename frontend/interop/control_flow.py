"""If, Loop and Scan of an imported graph.

Eagerly they are Python's own control flow. In a trace they become nodes again, whose subgraphs are
traced by `bodies.Body`; what decides a branch there may be known, and then there is no node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from onnxtape import context
from onnxtape.compiler.dims import Shape, same_dim
from onnxtape.engine import B, convert_to_tensor
from onnxtape.errors import ModelError
from onnxtape.interop.sequences import Growing, grown, is_sequence
from onnxtape.signature import TensorSpec
from onnxtape.tensor import Tensor
from onnxtape.variable import Variable

_BOOL, _INT64 = np.dtype(np.bool_), np.dtype(np.int64)
_BRANCHES = ("then_branch", "else_branch")


class Subgraph(Protocol):
    """A subgraph at work: called with its inputs, it gives its outputs.

    Attributes:
        specs: what the file says of its outputs; None where it says nothing.
    """

    @property
    def specs(self) -> Sequence[TensorSpec | None]: ...

    def __call__(self, *inputs: Any) -> list[Any]: ...


Subgraphs = dict[str, Subgraph]


def if_(title: str, operands: Sequence[Any], graphs: Subgraphs, attributes: Any) -> list[Any]:
    """One of the branches, if it is known which; else an If."""
    condition = operands[0]
    known = B.constant_value(condition)
    if known is not None or _sketching():
        return graphs[_BRANCHES[0] if known is None or known.item() else _BRANCHES[1]]()
    from onnxtape.bodies import Body

    captured: dict[Any, Tensor] = {}
    bodies: list[Body] = []
    made: list[list[Tensor]] = []
    for name in _BRANCHES:
        body = Body(name, captured)
        with body.tracing():
            made.append(_tensors(title, graphs[name]()))
        bodies.append(body)
    variables = list(dict.fromkeys(v for body in bodies for v in body.assigned()))
    for body, results in zip(bodies, made, strict=True):
        body.close([], [*results, *variables])
    attributes = {name: body.graph for name, body in zip(_BRANCHES, bodies, strict=True)}
    count = len(made[0])
    outputs = B.emit_with_subgraphs(
        "If", [condition], attributes, count + len(variables), list(captured.values())
    )
    _assign(variables, outputs[count:])
    return outputs[:count]


def loop(title: str, operands: Sequence[Any], graphs: Subgraphs, attributes: Any) -> list[Any]:
    """Iterations one after the other eagerly, and for sequences if they are counted; or a Loop."""
    body = graphs["body"]
    trips, going, *states = [*operands, None][: max(2, len(operands))]
    counted = any(map(is_sequence, states)) and _is_counted(trips, going, states, body)
    if counted or not tracing():
        return _iterated(title, trips, going, states, body)
    return _traced_loop(title, trips, going, states, body)


def _is_counted(trips: Any, going: Any, states: Sequence[Any], body: Subgraph) -> bool:
    """Whether a trace knows how many iterations there are, as far as the first one tells."""
    from onnxtape.bodies import Body
    from onnxtape.compiler.subgraphs import discard

    if any(x is not None and B.constant_value(x) is None for x in (trips, going)):
        return False
    if not tracing():
        return True
    first = Body("loop")
    with first.tracing():
        going = B.constant(np.asarray(True)) if going is None else going
        known = B.constant_value(body(B.constant(np.int64(0)), going, *states)[0])
    discard(first.graph)
    return known is not None


def _iterated(title: str, trips: Any, going: Any, states: list[Any], body: Subgraph) -> list[Any]:
    """A Loop as Python's own; in a trace, where the number of iterations is known then."""
    count = len(states)
    most = None if trips is None or _sketching() else _known(title, trips).item()
    going = B.constant(np.asarray(True)) if going is None else going
    rows: list[list[Any]] = []
    while (most is None or len(rows) < most) and (_sketching() or _known(title, going).item()):
        going, *made = body(B.constant(np.int64(len(rows))), going, *states)
        states = made[:count]
        rows.append(made[count:])
        if _sketching():
            break
    specs = body.specs[1 + count :]
    return [*states, *(_stacked(title, [r[j] for r in rows], s) for j, s in enumerate(specs))]


def _known(title: str, x: Tensor) -> Any:
    """The value of what decides about iterations."""
    known = B.constant_value(x)
    if known is None:
        raise ModelError(
            f"{title} carries a sequence through a number of iterations of which the first few are "
            "known while tracing, and others are not; export the model with a tensor in its place"
        )
    return known


def _stacked(title: str, parts: Sequence[Tensor], spec: TensorSpec | None, axis: int = 0) -> Tensor:
    """The slices of a scan output, joined along a new axis."""
    if parts:
        if axis < 0:
            axis += len(B.shape(parts[0]) or ()) + 1
        return B.op("Concat", *[B.op("Unsqueeze", p, [axis]) for p in parts], axis=axis)
    if spec is None:
        raise ModelError(
            f"{title} runs no iteration, and the model does not say of what dtype and shape its "
            "scan outputs are"
        )
    # As ONNX Runtime has it, what is not known is empty.
    dims = [d if isinstance(d, int) else 0 for d in spec.shape]
    return B.constant(np.zeros((0, *dims), spec.dtype))


def _traced_loop(
    title: str, trips: Any, going: Any, operands: Sequence[Any], body: Subgraph
) -> list[Any]:
    """A Loop node.

    States may change their shapes from one iteration to the next; where they do, the body is traced
    again with less known of them. What is added to sequences becomes scan outputs.
    """
    from onnxtape.bodies import Body
    from onnxtape.compiler.subgraphs import discard

    states = [x for x in operands if not is_sequence(x)]
    shapes = [B.shape(x) for x in states]
    while True:
        inner = Body("loop")
        number = inner.placeholder("iteration", _INT64, ())
        before = inner.placeholder("going", _BOOL, ())
        holders = [
            inner.placeholder("state", x.dtype, shape)
            for x, shape in zip(states, shapes, strict=True)
        ]
        with inner.tracing():
            given = iter(holders)
            again, *made = body(
                number, before, *(Growing() if is_sequence(x) else next(given) for x in operands)
            )
        after = made[: len(operands)]
        results = _tensors(title, [y for y in after if not is_sequence(y)])
        found = [_common(s, B.shape(x)) for s, x in zip(shapes, results, strict=True)]
        if found == shapes:
            break
        shapes = found
        discard(inner.graph)
    rows = _tensors(title, made[len(operands) :])
    added = [t for y in after if isinstance(y, Growing) for t in y.added]
    variables = inner.assigned()
    inner.close(
        [number, before, *holders, *variables], [again, *results, *variables, *rows, *added]
    )
    fixed = len(results) + len(variables)
    outputs = B.emit_with_subgraphs(
        "Loop",
        [
            trips,
            B.constant(np.asarray(True)) if going is None else going,
            *states,
            *map(inner.value_outside, variables),
        ],
        {"body": inner.graph},
        fixed + len(rows) + len(added),
        list(inner.captured.values()),
    )
    _assign(variables, outputs[len(results) : fixed])
    plain, stacks = iter(outputs[: len(results)]), iter(outputs[fixed + len(rows) :])
    last = [
        grown(title, x, y, [next(stacks) for _ in getattr(y, "added", ())])
        if is_sequence(x)
        else next(plain)
        for x, y in zip(operands, after, strict=True)
    ]
    return [*last, *outputs[fixed : fixed + len(rows)]]


def _common(before: Shape | None, after: Shape | None) -> Shape | None:
    """What holds of both shapes."""
    if before is None or after is None or len(before) != len(after):
        return None
    return tuple(x if same_dim(x, y) else None for x, y in zip(before, after, strict=True))


def scan(title: str, operands: Sequence[Any], graphs: Subgraphs, attributes: Any) -> list[Any]:
    """Steps one after the other eagerly, else a Scan."""
    body = graphs["body"]
    sliced = attributes["num_scan_inputs"]
    count = len(operands) - sliced
    states, scanned = list(operands[:count]), operands[count:]
    stacked = len(body.specs) - count

    def each(name: str, length: int) -> list[int]:
        return list(attributes.get(name) or [0] * length)

    in_axes = [
        axis % len(B.shape(x) or (0,))
        for axis, x in zip(each("scan_input_axes", sliced), scanned, strict=True)
    ]
    if tracing():
        return _traced_scan(title, states, scanned, in_axes, body, attributes)
    backwards = each("scan_input_directions", sliced)
    length = 1 if _sketching() else convert_to_tensor(scanned[0]).shape[in_axes[0]]
    rows: list[list[Any]] = []
    for i in range(length):
        slices = [
            B.op("Gather", x, np.asarray(length - 1 - i if back else i), axis=axis)
            for x, axis, back in zip(scanned, in_axes, backwards, strict=True)
        ]
        made = body(*states, *slices)
        states = made[:count]
        rows.append(made[count:])
    outputs = []
    reverse = each("scan_output_directions", stacked)
    for j, axis in enumerate(each("scan_output_axes", stacked)):
        parts = [row[j] for row in rows]
        parts = parts[::-1] if reverse[j] else parts
        outputs.append(_stacked(title, parts, body.specs[count + j], axis))
    return [*states, *outputs]


def _traced_scan(
    title: str,
    states: Sequence[Tensor],
    scanned: Sequence[Tensor],
    axes: Sequence[int],
    body: Subgraph,
    attributes: Any,
) -> list[Any]:
    from onnxtape.bodies import Body

    inner = Body("scan")
    holders = [inner.placeholder("state", x.dtype, B.shape(x)) for x in states]
    slices = [
        inner.placeholder("slice", x.dtype, _without(B.shape(x), axis))
        for x, axis in zip(scanned, axes, strict=True)
    ]
    with inner.tracing():
        made = _tensors(title, body(*holders, *slices))
    results, rows = made[: len(states)], made[len(states) :]
    variables = inner.assigned()
    inner.close([*holders, *variables, *slices], [*results, *variables, *rows])
    fixed = len(results) + len(variables)
    outputs = B.emit_with_subgraphs(
        "Scan",
        [*states, *map(inner.value_outside, variables), *scanned],
        {**attributes, "body": inner.graph},
        fixed + len(rows),
        list(inner.captured.values()),
    )
    _assign(variables, outputs[len(results) : fixed])
    return [*outputs[: len(results)], *outputs[fixed:]]


def _without(shape: Shape | None, axis: int) -> Shape | None:
    return None if shape is None else (*shape[:axis], *shape[axis + 1 :])


def sequence_map(
    title: str, operands: Sequence[Any], graphs: Subgraphs, attributes: Any
) -> list[Any]:
    """The body, applied to each element of the first sequence and those beside it."""
    body, count = graphs["body"], len(operands[0])
    rows = [body(*[x[i] if isinstance(x, list) else x for x in operands]) for i in range(count)]
    return [[row[j] for row in rows] for j in range(len(body.specs))]


OPERATORS: dict[str, Callable[[str, Sequence[Any], Subgraphs, Any], list[Any]]] = {
    "If": if_,
    "Loop": loop,
    "Scan": scan,
    "SequenceMap": sequence_map,
}


def _tensors(title: str, values: Sequence[Any]) -> list[Tensor]:
    if any(map(is_sequence, values)):
        raise ModelError(
            f"{title} makes a sequence, which is not supported where a branch or a number of "
            "iterations is chosen at run time; export the model with tensors in its place"
        )
    return list(values)


def _assign(variables: Sequence[Variable], values: Sequence[Tensor]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(B.refine_shape(value, variable.shape))


def tracing() -> bool:
    """Whether nodes are made, to be run later."""
    symbolic = context.state.symbolic
    return symbolic is not None and not symbolic.none_dims


def _sketching() -> bool:
    """Whether the model is called on `ot.Input`s, only to see what it makes: dtypes and shapes."""
    symbolic = context.state.symbolic
    return symbolic is not None and symbolic.none_dims
