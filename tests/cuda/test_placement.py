"""No node of a training step on CUDA would land on the CPU, by ONNX Runtime's own account.

There is no GPU here. `kernels.json` is what ONNX Runtime said when it was asked which operators its
CUDA provider has kernels for (`make_kernels.py`); `limits` is what its kernels refuse besides, when
they are made or run. Sizes are known, so no arithmetic on shapes is left, which would be the CPU's.
`test_simulated.py` asks ONNX Runtime about the steps themselves, where its CUDA package is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import onnxtape as ot
from onnxtape import concrete as concrete_module
from onnxtape.capturing import not_recorded
from onnxtape.compiler.target import Target
from tests.cuda.graphs import CUDA, cuda_graph, run_on_cpu, traced
from tests.cuda.steps import ROOT, STEPS, Make, Step

_TABLE = json.loads((Path(__file__).parent / "kernels.json").read_text())
KERNELS: dict[str, dict[str, list[str]]] = _TABLE["operators"]


@pytest.fixture(autouse=True)
def _only_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """No session is opened for the steps themselves."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(concrete_module, "compile_step", lambda traced, place: None)


def without_kernel(node: ir.Node) -> str | None:
    """Why no CUDA kernel runs the node; None if one does."""
    table = KERNELS.get(node.op_type)
    if table is None:
        return f"kernels.json does not know {node.op_type}: run tests/cuda/make_kernels.py"
    schema = onnx.defs.get_schema(node.op_type, _TABLE["opset"], "")
    formals = list(schema.inputs)
    for i, value in enumerate(node.inputs):
        if value is None or value.dtype is None:
            continue
        name = formals[min(i, len(formals) - 1)].type_str
        dtype = value.dtype.numpy().name
        if dtype not in table.get(name, [dtype]):
            return f"none of {dtype}"
    return limits(node)


def limits(node: ir.Node) -> str | None:
    """What the kernels themselves refuse."""
    attributes = node.attributes
    if node.op_type == "BatchNormalization" and attributes.get_int("training_mode", 0):
        return "none of training mode"
    if node.op_type == "ConvTranspose":
        pads = attributes.get_ints("pads") or [0, 0]
        half = len(pads) // 2
        if list(pads[:half]) != list(pads[half:]) or "auto_pad" in attributes:
            return "none that pads unevenly"
    if node.op_type == "ScatterND" and attributes.get_string("reduction", "none") != "none":
        dtype = node.inputs[0].dtype if node.inputs[0] is not None else None
        if dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
            return f"no reduction of {dtype}"
    if node.op_type == "Concat" and len(node.inputs) > 32:
        return "none of so many tensors that can be recorded"
    if node.op_type in ("ArgMax", "ArgMin") and attributes.get_int("select_last_index", 0):
        return "none that takes the last"
    return None


def problems(model: ir.Model) -> Iterator[str]:
    for node in model.graph.all_nodes():
        if (reason := without_kernel(node)) is not None:
            yield f"{node.op_type} '{node.name}': {reason}"


#: Sums in another order; float16 and bfloat16 are rounded elsewhere.
TOLERANCES = {"mixed_float16": 2e-2, "mixed_bfloat16": 1e-1}


@pytest.mark.parametrize(("name", "make"), STEPS.items(), ids=list(STEPS))
def test_a_step_on_cuda(name: str, make: Make) -> None:
    """Each node has a kernel; and results and new state are those of the graph for the CPU when
    both run there, random numbers to the bit."""
    step = make()
    concrete = traced(step)
    model = concrete.traced.rewritten(CUDA)
    assert not list(problems(model))
    assert not not_recorded(model)
    expected = run_on_cpu(concrete.traced.rewritten(Target("cpu")), concrete, step.batch)
    found = run_on_cpu(model, concrete, step.batch)
    assert found.keys() == expected.keys()
    tolerance = TOLERANCES.get(name.partition(":")[0], 2e-4)
    exact = name.endswith("numbers") or name in ("shuffled", "drawn classes")
    for output, array in expected.items():
        if exact or array.dtype.kind in "iub":
            np.testing.assert_array_equal(found[output], array, err_msg=output)
        else:
            wide = (np.asarray(a, np.float64) for a in (found[output], array))
            np.testing.assert_allclose(*wide, rtol=tolerance, atol=tolerance, err_msg=output)


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**63 - 1, *range(1000, 1040)])
def test_streams_are_equal_to_the_bit(seed: int) -> None:
    generator = ot.random.SeedGenerator(seed)

    def draw() -> Any:
        return [
            ot.random.uniform((257,), seed=generator),
            ot.random.uniform((64,), seed=generator),
            generator.draw(33),
        ]

    step = Step(draw, [])
    concrete = traced(step)
    expected = run_on_cpu(concrete.traced.rewritten(Target("cpu")), concrete, [])
    found = run_on_cpu(concrete.traced.rewritten(CUDA), concrete, [])
    for output, array in expected.items():
        np.testing.assert_array_equal(found[output], array)


def test_what_falls_is_found() -> None:
    whole = np.ones((2, 2), np.int64)
    (found,) = problems(cuda_graph(Step(lambda x: ot.ops.matmul(x, x), [whole])))
    assert found.startswith("MatMul")
    assert found.endswith("none of int64")


def test_what_is_not_recorded_is_found() -> None:
    model = cuda_graph(Step(lambda x: ot.ops.nonzero(x), [np.ones((2, 3), np.float32)]))
    assert not_recorded(model) == ["NonZero"]
