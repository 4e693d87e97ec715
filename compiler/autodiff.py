"""Reverse-mode differentiation of a sequence of operators.

`backward` works on `Record`s with any `Builder`: the frontend's tape calls it, eager or tracing.
`differentiate` is the same on an onnx_ir graph, to which it appends the backward nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from onnxtape.compiler import registry
from onnxtape.compiler.builder import Builder
from onnxtape.compiler.dims import format_shape, same_shape
from onnxtape.compiler.dtypes import is_floating
from onnxtape.compiler.errors import (
    DtypeError,
    GradientError,
    Provenance,
    ShapeError,
    UnknownRankError,
    located,
)
from onnxtape.compiler.gathered_inputs import with_gathered_inputs
from onnxtape.compiler.guards import with_guarded_softmax
from onnxtape.compiler.record import Record
from onnxtape.compiler.sequences import without_sequences
from onnxtape.compiler.straight_through import with_straight_through
from onnxtape.compiler.target import Target

if TYPE_CHECKING:
    import onnx_ir as ir

V = TypeVar("V")

#: The opset whose operators the rules emit; later ones still have them.
RULES_OPSET = 21


def backward(
    b: Builder[V],
    records: Sequence[Record[V]],
    targets: Sequence[V],
    sources: Sequence[V],
    output_gradients: Sequence[V | None] | None = None,
    *,
    straight_through: bool = False,
) -> list[V | None]:
    """Emit the gradient of the sum of `targets` with respect to each source.

    Args:
        b: what the backward operators are emitted with.
        records: the forward operators, in an order in which they can run.
        targets: floating-point values to differentiate.
        sources: values to differentiate by.
        output_gradients: the cotangent of each target, of its shape; ones where None.
        straight_through: let gradients pass Round, and QuantizeLinear or DynamicQuantizeLinear
            with a DequantizeLinear behind it, as if nothing were rounded (see
            `compiler.straight_through`); not in the bodies of If, Loop and Scan.

    Returns:
        One gradient per source, of its shape and dtype; None where no differentiable path leads
        from it to a target.

    Raises:
        GradientError: an operator on such a path has no rule, or its rule refuses; or a target is
            not floating-point.
        ShapeError, DtypeError: an output gradient does not fit its target.
        ValueError: there are not as many output gradients as targets.
    """
    for target in targets:
        if not is_floating(b.dtype(target)):
            raise GradientError(
                f"a gradient needs a floating-point target, not {b.dtype(target)}; "
                "cast it, or differentiate the value it was computed from"
            )
    if straight_through:
        records = with_straight_through(records)
    seen = with_guarded_softmax(without_sequences(b, records))
    seen = with_gathered_inputs(b, seen, sources)
    path = _path(b, seen, targets, sources)
    gradients: dict[int, list[V]] = {}
    seeds = [None] * len(targets) if output_gradients is None else output_gradients
    if len(seeds) != len(targets):
        raise ValueError(
            f"{len(seeds)} output gradients were given for {len(targets)} targets; "
            "give one for each, None for ones"
        )
    makers = {id(o): record.provenance for record, _ in path for o in record.outputs}
    for target, seed in zip(targets, seeds, strict=True):
        if seed is None:
            with b.origin(makers.get(id(target)), "backward"):
                seed = b.full_like(target, 1.0)
        else:
            _check_seed(b, seed, target)
        gradients.setdefault(id(target), []).append(seed)

    # A source may itself be an intermediate of the path, so sums are kept after use.
    for record, wanted in reversed(path):
        with b.origin(record.provenance, "backward"):
            arrived = [_collect(b, gradients, output) for output in record.outputs]
            if all(g is None for g in arrived):
                continue
            for value, grad in _apply_rule(b, record, wanted, arrived):
                gradients.setdefault(id(value), []).append(grad)
    found = []
    for source in sources:
        with b.origin(makers.get(id(source)), "backward"):
            found.append(_collect(b, gradients, source))
    return found


def _check_seed(b: Builder[V], seed: V, target: V) -> None:
    if b.dtype(seed) != b.dtype(target):
        raise DtypeError(
            f"an output gradient has dtype {b.dtype(seed)}, its target {b.dtype(target)}; "
            "they must be equal"
        )
    if not _compatible(b, seed, target):
        raise ShapeError(
            f"an output gradient has shape {format_shape(b.shape(seed))}, "
            f"its target {format_shape(b.shape(target))}; they must be equal"
        )


def _compatible(b: Builder[V], seed: V, target: V) -> bool:
    given, expected = b.shape(seed), b.shape(target)
    if given is None or expected is None or same_shape(given, expected):
        return True
    return len(given) == len(expected) and all(
        x == y or not (isinstance(x, int) and isinstance(y, int))
        for x, y in zip(given, expected, strict=True)
    )


def _path(
    b: Builder[V], records: Sequence[Record[V]], targets: Sequence[V], sources: Sequence[V]
) -> list[tuple[Record[V], list[bool]]]:
    """The records between sources and targets, each with the inputs that want a gradient."""
    active = {id(s) for s in sources if is_floating(b.dtype(s))}
    reached: list[tuple[Record[V], list[bool]]] = []
    for record in records:
        wanted = [x is not None and id(x) in active for x in record.inputs]
        if not any(wanted) or _is_flat(record):
            continue
        differentiable = [o for o in record.outputs if _may_be_floating(b, o)]
        if differentiable:
            active.update(map(id, differentiable))
            reached.append((record, wanted))
    needed = {id(t) for t in targets}
    path: list[tuple[Record[V], list[bool]]] = []
    for record, wanted in reversed(reached):
        if any(id(o) in needed for o in record.outputs):
            path.append((record, wanted))
            needed.update(id(x) for x, w in zip(record.inputs, wanted, strict=True) if w)
    path.reverse()
    return path


def _is_flat(record: Record[V]) -> bool:
    """Whether the derivative is zero by declaration."""
    standard = record.rule is None and not record.domain
    return standard and registry.has_zero_gradient(record.op_type)


def _may_be_floating(b: Builder[V], value: V) -> bool:
    """Whether the value can carry a derivative; what an unknown operator makes, may."""
    try:
        return is_floating(b.dtype(value))
    except DtypeError:
        return True


def _collect(b: Builder[V], gradients: dict[int, list[V]], value: V) -> V | None:
    """The sum of what has arrived for `value`, kept as one value from then on."""
    parts = gradients.get(id(value))
    if parts is None:
        return None
    if len(parts) == 2:
        parts[:] = [b.op("Add", *parts)]
    elif len(parts) > 2:
        parts[:] = [b.op("Sum", *parts)]
    return parts[0]


def _apply_rule(
    b: Builder[V], record: Record[V], wanted: Sequence[bool], arrived: Sequence[V | None]
) -> list[tuple[V, V]]:
    if record.rule is not None:
        entry: registry.Gradient | None = registry.Gradient(record.rule)
    else:
        entry = registry.lookup(record.op_type) if record.domain == "" else None
    if entry is None:
        reason = registry.refusals().get(record.op_type) if record.domain == "" else None
        raise GradientError(
            located(
                (
                    f"{record.title} cannot be differentiated: {reason}; it"
                    if reason
                    else f"{record.title} has no gradient rule, and it"
                )
                + " lies between the target and a source; stop the gradient there with "
                "ot.stop_gradient, or give it one with ot.custom_gradient",
                record.provenance,
            )
        )
    try:
        extra = (wanted,) if entry.expands else ()
        results = entry.rule(b, record, *extra, *arrived)
        return _input_gradients(b, record, wanted, entry, results)
    except (registry.Refusal, UnknownRankError) as refusal:
        raise GradientError(
            located(f"{record.title} cannot be differentiated: {refusal}", record.provenance)
        ) from None


def _input_gradients(
    b: Builder[V],
    record: Record[V],
    wanted: Sequence[bool],
    entry: registry.Gradient,
    results: Sequence[Any],
) -> list[tuple[V, V]]:
    pairs: list[tuple[V, V]] = []
    for i, (value, is_wanted) in enumerate(zip(record.inputs, wanted, strict=True)):
        if not is_wanted or value is None:
            continue
        if i >= len(results):
            raise registry.Refusal(f"its rule does not cover input {i}")
        grad: Any = results[i]() if callable(results[i]) else results[i]
        if grad is not None:
            grad = b.sum_to(grad, value) if entry.broadcasts else grad
            pairs.append((value, b.refine_shape(grad, b.shape(value))))
    return pairs


def differentiate(
    graph: ir.Graph,
    targets: Sequence[ir.Value | str],
    sources: Sequence[ir.Value | str],
    output_gradients: Sequence[ir.Value | None] | None = None,
    *,
    straight_through: bool = False,
    provider: str | None = None,
) -> list[ir.Value | None]:
    """Append to `graph` the backward pass of the sum of `targets`.

    Args:
        graph: an onnx_ir graph whose values carry dtypes (and shapes, as far as known), with its
            nodes in topological order, and opset 21 or later for the default domain.
        targets: floating-point values of the graph, or their names.
        sources: values of the graph, or their names: inputs, initializers or intermediates.
        output_gradients: one cotangent per target; ones where None.
        straight_through: as for `backward`.
        provider: the execution provider that the graph is for, "cpu" say, which lowerings are
            chosen by; None is any.

    Returns:
        One value per source: the gradient, with the source's shape and dtype, or None where the
        targets do not depend on it. The graph's outputs are left alone.

    Raises:
        GradientError: an operator between a source and a target has no rule or refuses; or the
            graph's opset is older than the rules are.
        KeyError: the graph holds no value of that name.
    """
    from onnxtape.compiler.graph_builder import GraphBuilder
    from onnxtape.compiler.subgraphs import records_of

    opset = graph.opset_imports.get("", RULES_OPSET)
    if opset < RULES_OPSET:
        raise GradientError(
            f"the graph is of opset {opset}; convert it to {RULES_OPSET} or later first, "
            "with onnx.version_converter"
        )
    by_name: dict[str, ir.Value] = {}
    if any(isinstance(v, str) for v in (*targets, *sources)):
        values = [*graph.inputs, *graph.initializers.values()]
        values.extend(output for node in graph for output in node.outputs)
        by_name = {v.name: v for v in values if v.name}

    def resolve(value: ir.Value | str) -> ir.Value:
        if not isinstance(value, str):
            return value
        if value not in by_name:
            raise KeyError(f"the graph has no value named '{value}'")
        return by_name[value]

    return backward(
        GraphBuilder(graph, opset=opset, target=Target(provider)),
        records_of(graph),
        [resolve(t) for t in targets],
        [resolve(s) for s in sources],
        output_gradients,
        straight_through=straight_through,
    )


def record_of(node: ir.Node) -> Record[ir.Value]:
    """A graph's node as the driver sees it."""
    return Record(
        node.op_type,
        tuple(node.inputs),
        tuple(node.outputs),
        {name: _plain(attr) for name, attr in node.attributes.items()},
        domain="" if node.domain == "ai.onnx" else node.domain,
        name=node.name or "",
        provenance=Provenance.from_metadata(node.metadata_props),
    )


def _plain(attr: ir.Attr) -> Any:
    import onnx_ir as ir

    if attr.type == ir.AttributeType.TENSOR:
        return attr.as_tensor().numpy()
    return attr.value
