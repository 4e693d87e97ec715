"""Gradients of ONNX's backend tests against central differences.

`judge` differentiates a test's model, the graph of an operator's function body included, by all
its floating-point inputs, and compares the vector-Jacobian product for random cotangents (of all
floating-point outputs) with central differences along random directions, for each input by
itself. The differences are taken in float64 where some evaluator makes the test's own outputs of
its own inputs there, else in float32. No gradient (None) means zero, and is compared as such.

Where the function is not smooth at the test's data (Relu at zero, ties), the data is moved a
little, at random, until it is; the verdict says so. Non-finite outputs get no cotangent.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir
from onnx_shape_inference import infer_symbolic_shapes

from onnxtape.compiler import GradientError, GraphBuilder, differentiate
from onnxtape.compiler.dtypes import is_floating
from tests.compiler.graphs import Array
from tests.conformance.differences import (
    FLOAT32,
    FLOAT64,
    Derivatives,
    NotSmooth,
    Precision,
    derivatives,
)
from tests.conformance.evaluators import EVALUATORS, Function
from tests.conformance.node_cases import (
    NodeCase,
    Unfit,
    brought,
    feeds_for,
    float_outputs,
    invalid,
)


class Status(Enum):
    AGREES = "agrees"
    REFUSED = "refused"
    WRONG = "wrong"
    UNFIT = "unfit"


class Crash(Exception):
    """Differentiation fails without a reason that is meant for users."""


@dataclass(frozen=True)
class Verdict:
    """What came of a test.

    Attributes:
        detail: why it is refused, wrong or unfit.
        refused: what the rules say of each input that they refuse, where they take others.
        moved: whether the data had to be moved.
        constants: whether the integer inputs (axes, sizes, ...) had to be constants.
        precision: of the central differences.
    """

    status: Status
    detail: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)
    moved: bool = False
    constants: bool = False
    precision: str = ""


@dataclass(frozen=True)
class Prepared:
    """A test's model in one precision, with its data and the outputs to differentiate."""

    precision: Precision
    model: onnx.ModelProto
    feeds: dict[str, Array]
    outputs: Sequence[str]


def judge(case: NodeCase) -> Verdict:
    """Differentiate the test's model and compare."""
    try:
        return _judge(case, prepare(case), constants=False)
    except (Unfit, NotSmooth) as unfit:
        return Verdict(Status.UNFIT, str(unfit))
    except GradientError as error:
        refusal = Verdict(Status.REFUSED, str(error))
    except Crash as crash:
        return Verdict(Status.WRONG, str(crash))
    # The tests give as inputs what models mostly hold as constants.
    if all(is_floating(x.dtype) for x in case.inputs.values() if x is not None):
        return refusal
    try:
        return _judge(case, [_with_constants(test) for test in prepare(case)], constants=True)
    except GradientError:
        return refusal
    except Crash as crash:
        return Verdict(Status.WRONG, str(crash))
    except NotSmooth as unfit:
        return Verdict(Status.UNFIT, str(unfit))


def _judge(case: NodeCase, prepared: Sequence[Prepared], constants: bool) -> Verdict:
    sources, refused = accepted_sources(prepared[0])
    test, run = _evaluator(case, prepared, sources)
    seed = zlib.crc32(case.name.encode())
    numeric = derivatives(run, test.feeds, sources, test.outputs, test.precision, seed)
    complaint = _compare(prepared, numeric)
    status = Status.WRONG if complaint else Status.AGREES
    return Verdict(status, complaint, refused, numeric.moved, constants, numeric.precision.name)


def prepare(case: NodeCase) -> list[Prepared]:
    """The test in the precisions that it can be had in, the best first."""
    found = []
    reason = ""
    for precision in (FLOAT64, FLOAT32):
        try:
            model = brought(case.model, precision.elem_type)
        except Unfit as unfit:
            reason = reason or str(unfit)
            continue
        feeds = feeds_for(model, case.inputs)
        found.append(Prepared(precision, model, feeds, float_outputs(case.model)))
    if not found:
        raise Unfit(reason)
    return found


def _with_constants(test: Prepared) -> Prepared:
    """The test with constants for the inputs that are not floating-point."""
    model = onnx.ModelProto()
    model.CopyFrom(test.model)
    feeds = {name: x for name, x in test.feeds.items() if is_floating(x.dtype)}
    kept = [v for v in model.graph.input if v.name in feeds]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    fixed = {name: x for name, x in test.feeds.items() if name not in feeds}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(x, k) for k, x in fixed.items())
    return replace(test, model=model, feeds=feeds)


def _evaluator(
    case: NodeCase, prepared: Sequence[Prepared], sources: Sequence[str]
) -> tuple[Prepared, Function]:
    """What makes the test's outputs of its inputs, in the best precision there is."""
    complaints = []
    for test in prepared:
        dtype = np.dtype(test.precision.name)
        if any(test.feeds[name].dtype != dtype for name in sources):
            continue
        for name, make in EVALUATORS.items():
            try:
                run = make(test.model)
                complaint = _unexpected(case, run(test.feeds), test.outputs, dtype)
            # Evaluators raise what they like where they lack an operator.
            except Exception as error:
                complaint = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            if not complaint:
                return test, run
            complaints.append(f"{name} in {test.precision.name}: {complaint}")
    raise Unfit("no evaluator makes what the test expects: " + "; ".join(complaints))


def _unexpected(
    case: NodeCase, found: Mapping[str, Array], names: Sequence[str], dtype: np.dtype[Any]
) -> str:
    for name in names:
        expected, value = case.outputs[name], np.asarray(found[name])
        if expected is None:
            return f"'{name}' is not a tensor"
        if value.shape != expected.shape:
            return f"'{name}' has shape {value.shape}, expected {expected.shape}"
        if value.dtype != dtype:
            return f"'{name}' is of {value.dtype}"
        rtol = 1e-3 if expected.dtype in (np.float32, np.float64) else 2e-2
        wanted = expected.astype(np.float64)
        if not np.allclose(value.astype(np.float64), wanted, rtol, 1e-5, equal_nan=True):
            return f"'{name}' differs from what the test expects"
    return ""


# The gradient under test ------------------------------------------------------------------------


class Built(NamedTuple):
    """The model of the gradients, and its output for each source; None for no gradient."""

    model: onnx.ModelProto
    gradients: dict[str, str | None]


def accepted_sources(test: Prepared) -> tuple[list[str], dict[str, str]]:
    """The inputs to differentiate by, and what the rules say of those that they refuse.

    Raises:
        GradientError: they refuse all of them.
    """
    sources = [name for name, x in test.feeds.items() if is_floating(x.dtype)]
    try:
        build(test, sources, {})
    except GradientError as error:
        refused: dict[str, str] = {}
        for name in sources:
            try:
                build(test, [name], {})
            except GradientError as reason:
                refused[name] = str(reason)
        if len(refused) == len(sources):
            raise error from None
        return [name for name in sources if name not in refused], refused
    return sources, {}


def cotangent_name(output: str) -> str:
    return f"cotangent of {output}"


def build(test: Prepared, sources: Sequence[str], cotangents: Mapping[str, Array]) -> Built:
    """Differentiate; without `cotangents`, ones are meant."""
    model = ir.from_proto(onnx.shape_inference.infer_shapes(test.model, data_prop=True))
    graph = model.graph
    if any(output.shape is None for node in graph for output in node.outputs):
        infer_symbolic_shapes(model)
    b = GraphBuilder(graph, opset=graph.opset_imports[""])
    by_name = {v.name or "": v for v in [*graph.inputs, *graph.outputs]}
    seeds = [
        b.input(cotangent_name(name), b.dtype(by_name[name]), cotangents[name].shape)
        if name in cotangents
        else None
        for name in test.outputs
    ]
    targets = [by_name[name] for name in test.outputs]
    try:
        found = differentiate(graph, targets, [by_name[name] for name in sources], seeds)
    except GradientError:
        raise
    except Exception as error:
        raise Crash(f"differentiate fails: {type(error).__name__}: {error}") from error
    # An output is a node's own, and named once.
    own = [None if g is None else b.op("Identity", g) for g in found]
    graph.outputs[:] = [g for g in own if g is not None]
    names = [None if g is None else g.name for g in own]
    return Built(ir.to_proto(model), dict(zip(sources, names, strict=True)))


def _compare(prepared: Sequence[Prepared], numeric: Derivatives) -> str:
    """What is wrong with the gradients, "" if nothing.

    The model of the gradients runs in the first evaluator and precision that has all its
    operators, and has to be right in one of them.
    """
    complaints = []
    for test in prepared:
        if test.precision.step < numeric.precision.step:
            continue
        built = build(test, list(numeric.along), numeric.cotangents)
        if (complaint := invalid(built.model)) and not invalid(test.model):
            return f"the model of the gradients is not valid: {complaint}"
        dtypes = {
            v.name: ir.DataType(v.type.tensor_type.elem_type) for v in built.model.graph.input
        }
        feeds = {**numeric.feeds, **{cotangent_name(k): v for k, v in numeric.cotangents.items()}}
        feeds = {name: np.asarray(feeds[name], dtype.numpy()) for name, dtype in dtypes.items()}
        for name, make in EVALUATORS.items():
            try:
                found = make(built.model)(feeds) if built.model.graph.output else {}
            except Exception as error:
                complaint = f"{type(error).__name__}: {error}"
            else:
                complaint = _disagreement(test.precision, numeric, built, found)
            if not complaint:
                return ""
            complaints.append(f"{name} in {test.precision.name}: {complaint}")
    return "\n".join(complaints)


def _disagreement(
    precision: Precision, numeric: Derivatives, built: Built, found: Mapping[str, Array]
) -> str:
    for source, directions in numeric.directions.items():
        name, x = built.gradients[source], numeric.feeds[source]
        gradient = np.zeros(x.shape) if name is None else found[name]
        if gradient.shape != x.shape:
            return f"the gradient by '{source}' has shape {gradient.shape}, not {x.shape}"
        if not np.isfinite(gradient).all():
            return f"the gradient by '{source}' is not finite"
        for direction, expected in zip(directions, numeric.along[source], strict=True):
            parts = gradient.astype(np.float64) * direction
            size = max(abs(expected), float(np.sqrt((parts**2).sum())))
            if abs(parts.sum() - expected) > precision.tolerance * size + numeric.floor:
                shown = "None" if name is None else f"{parts.sum():.9g}"
                return f"by '{source}': {shown}, numerically {expected:.9g}"
    return ""
