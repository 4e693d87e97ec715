"""ScatterND with a reduction, which ONNX Runtime lets several threads run at once."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxtape.compiler.dims import Shape
from onnxtape.compiler.passes import serial_scatters
from onnxtape.compiler.passes.serial_scatters import SERIAL, SerialScatters
from tests.compiler.graphs import Array, model_of, new_graph, run
from tests.compiler.pass_checks import apply, operators

FLOAT32, INT64 = np.dtype(np.float32), np.dtype(np.int64)
REDUCTIONS = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


def scattering(data: Shape, indices: Shape, updates: Shape, reduction: str = "add") -> ir.Graph:
    graph, b = new_graph()
    operands = (
        b.input("data", FLOAT32, data),
        b.input("indices", INT64, indices),
        b.input("updates", FLOAT32, updates),
    )
    graph.outputs.append(b.op("ScatterND", *operands, reduction=reduction))
    return graph


def feeds(data: Shape, indices: Shape, seed: int = 0) -> dict[str, Array]:
    """Few different places, counted from the front and the back; numbers that add up exactly."""
    random = np.random.default_rng(seed)
    depth = indices[-1]
    places = [random.integers(-min(3, d), min(3, d), indices[:-1]) for d in data[:depth]]
    shape = (*indices[:-1], *data[depth:])
    return {
        "data": random.integers(1, 3, data).astype("f"),
        "indices": np.stack(places, axis=-1),
        "updates": random.choice(np.float32([1, 2, -1, 0.5]), shape),
    }


def expected(given: dict[str, Array], reduction: str) -> Array:
    """By NumPy: `ufunc.at` adds up at equal places."""
    result = given["data"].copy()
    REDUCTIONS[reduction].at(result, tuple(np.moveaxis(given["indices"], -1, 0)), given["updates"])
    return result


CASES: list[tuple[Shape, Shape]] = [
    ((7, 64), (4000, 1)),
    ((7, 4, 32), (60, 70, 1)),
    ((5000, 64), (4000, 1)),
    ((5000, 4, 32), (60, 70, 1)),
    ((5, 6, 64), (4000, 2)),
    ((5, 6), (250_000, 2)),
    ((9,), (250_000, 1)),
    ((4, 150_000), (3, 1)),
]


@pytest.mark.parametrize(("data", "indices"), CASES)
@pytest.mark.parametrize("symbolic", [False, True])
def test_equal_places_add_up_on_two_threads(data: Shape, indices: Shape, symbolic: bool) -> None:
    given = feeds(data, indices)
    shape = given["updates"].shape
    free: Shape = ("n", *indices[1:])
    graph = scattering(data, free, (*free[:-1], *shape[len(indices) - 1 :]))
    if not symbolic:
        graph = scattering(data, indices, shape)
    model = model_of(graph)
    assert apply(SerialScatters(), graph)
    assert not apply(SerialScatters(), graph)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    for _ in range(5):
        (got,) = session.run(None, given)
        np.testing.assert_array_equal(got, expected(given, "add"))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("rows", [0, 1, 7, 100])
@pytest.mark.parametrize(
    ("data", "indices", "updates"),
    [
        ((4, 3), ("n", 1), ("n", 3)),
        ((4, 3, 5), ("n", 2, 1), ("n", 2, 3, 5)),
        ((4, 3, 5), ("n", 2), ("n", 5)),
        ((4, 3), ("n", 2), ("n",)),
        (("a", "b", "c"), ("n", 2), ("n", "c")),
        (("a", "b", "c"), ("n", 2, 1), ("n", 2, "b", "c")),
    ],
)
def test_numbers_of_updates_that_are_not_known(
    data: Shape,
    indices: Shape,
    updates: Shape,
    rows: int,
    reduction: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In pieces of two rows."""
    sizes = {"a": 4, "b": 3, "c": 5, "n": rows}
    whole, named = (
        tuple(sizes[d] if isinstance(d, str) else d for d in shape) for shape in (data, indices)
    )
    graph = scattering(data, indices, updates, reduction)
    given = feeds(whole, named, seed=rows)
    given["updates"] = np.where(given["updates"] < 0, 1, given["updates"])
    if rows > 20 and reduction == "mul":
        given["updates"][:] = 1
    monkeypatch.setattr(serial_scatters, "SERIAL", 2 * max(1, math.prod(whole[named[-1] :])))
    assert apply(SerialScatters(), graph)
    (got,) = run(graph, given)
    np.testing.assert_array_equal(got, expected(given, reduction))


@pytest.mark.parametrize("unknown", ["data", "indices", "updates"])
def test_unknown_ranks(unknown: str) -> None:
    """As they are after a Reshape to a shape that is computed."""
    given = feeds((2, 3, 64), (70, 100, 2))
    graph, b = new_graph()
    operands = {}
    for name, array in given.items():
        dtype, shape = np.dtype(array.dtype), array.shape
        operands[name] = b.input(name, dtype, shape if name != unknown else (array.size,))
    to = b.input("to", INT64, ("rank",))
    operands[unknown] = b.op("Reshape", operands[unknown], to)
    assert b.rank(operands[unknown]) is None
    result = b.op("ScatterND", *operands.values(), reduction="add")
    graph.outputs.append(b.op("Reshape", result, [2, 3, 64]))
    fed = given | {unknown: given[unknown].reshape(-1), "to": np.int64(given[unknown].shape)}
    assert apply(SerialScatters(), graph)
    (got,) = run(graph, fed)
    np.testing.assert_array_equal(got, expected(given, "add"))
    assert not apply(SerialScatters(), graph)


@pytest.mark.parametrize("reduction", ["add", "none"])
def test_what_one_thread_runs_stays(reduction: str) -> None:
    rows = SERIAL // 64 + (reduction == "none")
    graph = scattering((7, 64), (rows, 1), (rows, 64), reduction)
    assert not apply(SerialScatters(), graph)
    assert operators(graph) == ["ScatterND"]


def test_a_single_row_stays() -> None:
    graph = scattering((7, 2 * SERIAL), (1, 1), (1, 2 * SERIAL))
    assert not apply(SerialScatters(), graph)
