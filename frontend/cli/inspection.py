"""`onnxtape inspect`: what an artifact or an ONNX file holds, and what running it takes."""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxtape.cli.output import UsageError, print_table, readable_size, shown_shape, whole_number

if TYPE_CHECKING:
    import onnx

    from onnxtape.runtime import StateEntry, TensorEntry

_DESCRIPTION = """\
Show the inputs, results, state and operators of an artifact or an ONNX model, and estimate the
operations and the memory of one run at a batch size."""


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "inspect",
        help="show what an artifact or an ONNX model holds",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("path", type=Path, metavar="FOLDER|MODEL.onnx", help="an artifact, or a model")
    add("--batch", type=whole_number(1), default=32, metavar="N", help="default: 32")
    add(
        "--dim",
        type=_sized,
        action="append",
        default=[],
        metavar="NAME=N",
        help="the size of another open dimension",
    )
    parser.set_defaults(run=run)


def _sized(text: str) -> tuple[str, int]:
    name, equals, size = text.rpartition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=N")
    return name, whole_number(1)(size)


def run(options: argparse.Namespace) -> int:
    """Print the tables."""
    if options.path.is_dir():
        _inspect_artifact(options)
    else:
        _inspect_model(options)
    return 0


def _inspect_artifact(options: argparse.Namespace) -> None:
    import onnx

    from onnxtape.runtime import read_artifact
    from onnxtape.runtime.dtypes import DTYPES

    artifact = read_artifact(options.path)
    manifest = artifact.manifest
    files = ", ".join(f"{n} {readable_size(f.size)}" for n, f in manifest.files.items())
    print(f"{options.path}: an artifact by {manifest.producer}, opset {manifest.opset}; {files}\n")
    _print_tensors("Batch inputs", manifest.inputs)
    _print_tensors("Results", manifest.outputs)
    if manifest.inference is not None:
        _print_tensors("Inference: inputs", manifest.inference.inputs)
        _print_tensors("Inference: outputs", manifest.inference.outputs)
    rows, totals = [], Counter[str]()
    for entry in manifest.state:
        size = math.prod(entry.shape) * DTYPES[entry.dtype].size
        totals[entry.role] += size
        rows.append((entry.name, entry.role, entry.dtype, shown_shape(entry.shape), size))
    columns = ("name", "role", "dtype", "shape", "bytes")
    print_table("State", columns, rows, right=("bytes",))
    print(f"parameters: {_parameters(manifest.state)}")
    state = sum(totals.values())
    shares = ", ".join(f"{role} {readable_size(size)}" for role, size in totals.items())
    print(f"state: {readable_size(state)} ({shares})\n")
    model = onnx.load(artifact.training)
    _print_operators(model)
    changing = sum(
        math.prod(e.shape) * DTYPES[e.dtype].size for e in manifest.state if e.output is not None
    )
    # A session keeps what a step reads and what it writes apart.
    _print_estimate(model, options, "step", state + changing)


def _inspect_model(options: argparse.Namespace) -> None:
    import onnx

    from onnxtape.interop.reading import read_model

    read = read_model(options.path)
    model = read.original
    opset = ", ".join(f"{o.domain or 'ai.onnx'} {o.version}" for o in model.opset_import)
    print(
        f"{options.path}: an ONNX model by {model.producer_name or 'an unknown producer'}, opset "
        f"{opset}\n"
    )
    known = {t.name for t in model.graph.initializer}
    for title, values in (("Inputs", model.graph.input), ("Outputs", model.graph.output)):
        rows = [(v.name, *_type_of(v)) for v in values if v.name not in known]
        print_table(title, ("name", "dtype", "shape"), rows)
    weights, total = [], 0
    for tensor in model.graph.initializer:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        size = math.prod(tensor.dims) * dtype.itemsize
        total += size
        weights.append((tensor.name, dtype.name, shown_shape(list(tensor.dims)), size))
    columns = ("name", "dtype", "shape", "bytes")
    print_table("Initializers", columns, weights, right=("bytes",))
    count = sum(math.prod(t.dims) for t in model.graph.initializer)
    print(f"initializers: {count:,} elements, {readable_size(total)}\n")
    _print_operators(model)
    _print_estimate(read.prepared, options, "run", total)


def _type_of(value: onnx.ValueInfoProto) -> tuple[str, str]:
    import onnx

    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        return value.type.WhichOneof("value") or "?", "?"
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    if not kind.HasField("shape"):
        return dtype, "of any rank"
    dims = [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in kind.shape.dim]
    return dtype, shown_shape(dims)


def _print_tensors(title: str, entries: Sequence[TensorEntry]) -> None:
    rows = [(e.name, e.dtype, shown_shape(e.shape)) for e in entries]
    print_table(title, ("name", "dtype", "shape"), rows)


def _parameters(state: Sequence[StateEntry]) -> str:
    """Parameters are trained, or (where a step only reads them) frozen."""
    trained = sum(math.prod(e.shape) for e in state if e.role == "parameter" and e.output)
    frozen = sum(math.prod(e.shape) for e in state if e.role in ("parameter", "buffer")) - trained
    return f"{trained:,} trained, {frozen:,} other"


def _print_operators(model: onnx.ModelProto) -> None:
    counts = Counter(node.op_type for node in model.graph.node)
    rows = [(op, count) for op, count in counts.most_common()]
    print_table(f"{counts.total()} nodes", ("operator", "count"), rows, right=("count",))


def _print_estimate(
    model: onnx.ModelProto, options: argparse.Namespace, what: str, resident: int
) -> None:
    from onnxtape.cli.estimates import estimate, open_dimensions

    dims = open_dimensions(model.graph)
    sizes = {name: options.batch for name, leading in dims.items() if leading}
    for name, size in options.dim:
        if name not in dims:
            raise UsageError(
                f"there is no open dimension {name!r}; there are {', '.join(dims) or 'none'}"
            )
        sizes[name] = size
    found = estimate(model, sizes)
    print(
        f"Estimate for a {what} at a batch of {options.batch}: "
        f"{found.flops / 1e6:,.3f} MFLOP in MatMul, Gemm and Conv; "
        f"{readable_size(resident)} of state or weights and {readable_size(found.peak_bytes)} of "
        "values between operators, at most"
    )
    if open_left := [name for name in dims if name not in sizes]:
        print(f"  not counted: what depends on {', '.join(open_left)}; give --dim {open_left[0]}=N")
    elif found.unknown:
        print(f"  not counted: {len(found.unknown)} of these whose shapes are not known")
    if found.bodies:
        print(f"  not counted: the bodies of {', '.join(found.bodies)}")
