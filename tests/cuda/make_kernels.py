"""Writes kernels.json: which operators ONNX Runtime's CUDA provider has kernels for, and of what.

    python -m tests.cuda.make_kernels

ONNX Runtime itself is asked, by models of one node each, where it places them: on a machine with a
GPU, or with the stand-in of `make simulate-cuda`. The names and types are those of the schemas of
the opset in which steps are traced.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxtape.compiler.dtypes import from_onnx
from onnxtape.compiler.passes.cuda.lower import LowerForCuda
from onnxtape.errors import ExecutionError
from onnxtape.runtime.placement import CPU_PROVIDER, placement
from onnxtape.runtime.providers import load_onnxruntime
from tests.cuda.graphs import cuda_graph
from tests.cuda.steps import STEPS

OPSET = 21
PATH = Path(__file__).parent / "kernels.json"

#: What operators need besides inputs.
ATTRIBUTES: dict[str, dict[str, Any]] = {
    "ArgMax": {"keepdims": 0},
    "AveragePool": {"kernel_shape": [2, 2]},
    "Cast": {"to": 1},
    "Concat": {"axis": 0},
    "DepthToSpace": {"blocksize": 2},
    "Einsum": {"equation": "ij,jk->ik"},
    "LRN": {"size": 3},
    "MaxPool": {"kernel_shape": [2, 2]},
    "SpaceToDepth": {"blocksize": 2},
    "Split": {"num_outputs": 2},
}
#: Optional inputs that operators do not go without.
OPTIONAL = {"Resize": [2]}
#: Operators whose first two inputs have four axes.
IMAGE = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
DEFAULT = ("tensor(float)", "tensor(int64)", "tensor(bool)")


def types_of(op_type: str) -> dict[str, list[str]]:
    """By type variable of the operator's schema, the dtypes that a CUDA kernel takes for it."""
    schema = onnx.defs.get_schema(op_type, OPSET, "")
    found: dict[str, list[str]] = {}
    for constraint in schema.type_constraints:
        name = constraint.type_param_str
        if not any(x.type_str == name for x in schema.inputs):
            continue
        allowed = [t for t in constraint.allowed_type_strs if t.startswith("tensor(")]
        found[name] = sorted(
            from_onnx(number(t)).name
            for t in allowed
            if is_known(t) and runs_on_cuda(schema, {name: t})
        )
    return found


def number(written: str) -> int:
    """ONNX's number of "tensor(float)"."""
    name = written.removeprefix("tensor(").removesuffix(")").upper()
    return int(onnx.TensorProto.DataType.Value(name))


def is_known(written: str) -> bool:
    names = "float float16 bfloat16 double bool int8 int16 int32 int64 uint8 uint16 uint32 uint64"
    return written.removeprefix("tensor(").removesuffix(")") in names.split()


def runs_on_cuda(schema: Any, chosen: dict[str, str]) -> bool:
    inputs, names = [], []
    for i, formal in enumerate(schema.inputs):
        if i >= max(schema.min_input, 1) and i not in OPTIONAL.get(schema.name, []):
            names.append("")
            continue
        given = chosen.get(formal.type_str) or next(t for t in DEFAULT if t in formal.types)
        shape = [f"d{i}{k}" for k in range(4)] if schema.name in IMAGE and i < 2 else None
        inputs.append(helper.make_tensor_value_info(f"x{i}", number(given), shape))
        names.append(f"x{i}")
    outputs = ATTRIBUTES.get(schema.name, {}).get("num_outputs", max(schema.min_output, 1))
    made = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(schema.name, names, made, **ATTRIBUTES.get(schema.name, {}))
    while node.input and not node.input[-1]:
        node.input.pop()
    graph = helper.make_graph([node], "one", inputs, [onnx.ValueInfoProto(name=y) for y in made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    try:
        placed = placement(model.SerializeToString(), "cuda", optimize=False)
    except ExecutionError:
        return False  # no provider has a kernel
    return bool(placed) and all(node.provider != CPU_PROVIDER for node in placed)


def operators() -> list[str]:
    """Those of the steps and of what they are lowered to."""
    found = set(LowerForCuda.adds)
    for make in STEPS.values():
        found |= {node.op_type for node in cuda_graph(make()).graph.all_nodes()}
    return sorted(found)


def main() -> None:
    table = {op_type: types_of(op_type) for op_type in operators()}
    lacking = [op for op, types in table.items() if types and not any(types.values())]
    print("no kernel at all:", ", ".join(lacking) or "none")
    note = f"made by tests/cuda/make_kernels.py with onnxruntime {load_onnxruntime().__version__}"
    lines = ",\n".join(f"  {json.dumps(op)}: {json.dumps(types)}" for op, types in table.items())
    PATH.write_text(
        f'{{"source": {json.dumps(note)}, "opset": {OPSET}, "operators": {{\n{lines}\n}}}}\n'
    )


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
