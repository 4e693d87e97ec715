"""Running one operator at once: a cache of one-node sessions.

A session is made for each operator, combination of input types and set of attributes, on first use
(about 1 ms), and then costs some 5 microseconds a run. Shapes are free.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from onnxtape.runtime.denormals import flushing
from onnxtape.runtime.devices import CPU, Device, fetch, moved, put
from onnxtape.runtime.dtypes import DTYPES, name_of
from onnxtape.runtime.errors import ExecutionError
from onnxtape.runtime.providers import Providers
from onnxtape.runtime.session import create_session, execution_error
from onnxtape.runtime.values import bindings, ort_device

#: Operators whose work is worth a thread pool of their own; the others run on the caller's thread.
_HEAVY = frozenset(("MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "LSTM", "GRU", "RNN"))

_IR_VERSION = 10
_BFLOAT16, _FLOAT32 = DTYPES["bfloat16"].onnx, DTYPES["float32"].onnx


class _Kernel(Protocol):
    def __call__(self, inputs: Sequence[Any]) -> Sequence[Any]: ...


class EagerExecutor:
    """Applies standard ONNX operators to OrtValues.

    Args:
        opset: default-domain opset version of the operators.
        lowest_opset: gives the one that an operator needs: its name, `opset`, the names of its
            attributes, the numbers of its inputs and outputs.
        providers: see `runtime.providers.resolve_providers`.
        device: results stay on it; None leaves them to ONNX Runtime, which brings them to the CPU.
    """

    def __init__(
        self,
        opset: int = 21,
        providers: Providers = None,
        lowest_opset: Callable[[str, int, Iterable[str], int, int], int] | None = None,
        device: Device | None = None,
    ) -> None:
        self._opset = opset
        self._lowest_opset = lowest_opset
        self._providers = providers
        self._device = device
        self._kernels: dict[Any, _Kernel] = {}

    @property
    def session_count(self) -> int:
        """How many sessions have been made so far."""
        return len(self._kernels)

    def run(
        self,
        op_type: str,
        inputs: Sequence[Any],
        attributes: Mapping[str, Any],
        outputs: int = 1,
    ) -> Sequence[Any]:
        """Apply the operator and return its outputs as OrtValues.

        Args:
            inputs: OrtValues; None for an omitted optional input.
            attributes: plain Python values; NumPy arrays for tensors.

        Raises:
            ExecutionError: ONNX Runtime refused the inputs; the message holds its reason.
        """
        types = tuple([None if x is None else x.element_type() for x in inputs])
        key = (op_type, types, outputs, _freeze(attributes) if attributes else ())
        kernel = self._kernels.get(key)
        if kernel is None:
            kernel = self._kernels[key] = self._make(op_type, types, attributes, outputs)
        return kernel(inputs)

    def _make(
        self,
        op_type: str,
        types: tuple[int | None, ...],
        attributes: Mapping[str, Any],
        outputs: int,
    ) -> _Kernel:
        opset = self._opset
        if self._lowest_opset is not None:
            opset = self._lowest_opset(op_type, opset, attributes, len(types), outputs)
        model = _one_node_model(op_type, types, attributes, outputs, opset)
        session = self._session(op_type, model)
        if session is None and _BFLOAT16 in types:
            session = self._session(op_type, _in_float32(model))
        if session is None:
            names = [name_of(t) for t in types if t is not None]
            warnings.warn(
                f"ONNX Runtime has no kernel for {op_type} on ({', '.join(names)}); "
                "it runs through ONNX's reference implementation, which is slow",
                RuntimeWarning,
                stacklevel=2,
            )
            return _ReferenceKernel(op_type, model, self._device)
        if self._device is not None:
            return _BoundKernel(op_type, session, types, outputs, self._device)
        return _SessionKernel(op_type, session, types, outputs)

    def _session(self, op_type: str, model: Any) -> Any | None:
        """None where ONNX Runtime has no kernel."""
        try:
            return create_session(
                model.SerializeToString(),
                self._providers,
                optimize=False,
                threads=None if op_type in _HEAVY else 1,
                spin=False,
                shared_arena=True,
            )
        except ExecutionError as error:
            if "Could not find an implementation" not in str(error):
                raise
            return None


def run_graph(model: bytes, feeds: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
    """Run a serialized graph once, on the CPU.

    Args:
        feeds: OrtValues by the names of the inputs, from any device.
        outputs: names.

    Raises:
        ExecutionError: ONNX Runtime refused the graph or its inputs; the message holds its reason.
    """
    session = create_session(model, threads=1)
    given = {name: moved(value, CPU) for name, value in feeds.items()}
    try:
        results = flushing(session._sess.run_with_ort_values)(given, list(outputs), None)
    except Exception as error:
        raise execution_error(error, "a graph failed") from None
    return [results[i] for i in range(len(outputs))]


class _SessionKernel:
    __slots__ = ("_names", "_op_type", "_outputs", "_run", "session")

    def __init__(
        self, op_type: str, session: Any, types: Sequence[int | None], outputs: int
    ) -> None:
        self.session = session
        self._op_type = op_type
        self._run = flushing(session._sess.run_with_ort_values)
        self._names = [f"x{i}" for i in range(len(types))]
        self._outputs = [f"y{i}" for i in range(outputs)]

    def __call__(self, inputs: Sequence[Any]) -> Sequence[Any]:
        feeds = {n: x for n, x in zip(self._names, inputs, strict=True) if x is not None}
        try:
            results: Sequence[Any] = self._run(feeds, self._outputs, None)
        except Exception as error:
            raise execution_error(error, f"{self._op_type} failed") from None
        return results


class _BoundKernel:
    """A session whose results are made, and stay, on a device."""

    __slots__ = ("_device", "_names", "_op_type", "_outputs", "_run", "session")

    def __init__(
        self, op_type: str, session: Any, types: Sequence[int | None], outputs: int, device: Device
    ) -> None:
        self.session = session
        self._op_type = op_type
        self._run = flushing(session._sess.run_with_iobinding)
        self._names = [f"x{i}" for i in range(len(types))]
        self._outputs = [f"y{i}" for i in range(outputs)]
        self._device = ort_device(*device)

    def __call__(self, inputs: Sequence[Any]) -> Sequence[Any]:
        io = bindings().SessionIOBinding(self.session._sess)
        try:
            for name, value in zip(self._names, inputs, strict=True):
                if value is not None:
                    io.bind_ortvalue_input(name, value)
            for name in self._outputs:
                io.bind_output(name, self._device)
            self._run(io, None)
        except Exception as error:
            raise execution_error(error, f"{self._op_type} failed") from None
        results: Sequence[Any] = io.get_outputs()
        return results


class _ReferenceKernel:
    def __init__(self, op_type: str, model: Any, device: Device | None) -> None:
        from onnx.reference import ReferenceEvaluator

        self._op_type = op_type
        self._device = device or CPU
        self._evaluator = ReferenceEvaluator(model)

    def __call__(self, inputs: Sequence[Any]) -> Sequence[Any]:
        feeds = {f"x{i}": fetch(x) for i, x in enumerate(inputs) if x is not None}
        try:
            # Infinities and NaN come silently, as from kernels.
            with np.errstate(all="ignore"):
                results = self._evaluator.run(None, feeds)
        except Exception as error:
            raise ExecutionError(f"{self._op_type} failed: {error}") from error
        return [put(np.asarray(r), self._device) for r in results]


def _freeze(attributes: Mapping[str, Any]) -> tuple[Any, ...]:
    """The attributes as a hashable key."""
    return tuple([(name, _frozen(value)) for name, value in sorted(attributes.items())])


def _frozen(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return (value.dtype.name, value.shape, value.tobytes())
    return tuple(value) if isinstance(value, list) else value


def _one_node_model(
    op_type: str,
    types: Sequence[int | None],
    attributes: Mapping[str, Any],
    outputs: int,
    opset: int,
) -> Any:
    import onnx
    from onnx import helper, numpy_helper

    plain = {
        name: numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        for name, value in attributes.items()
    }
    node = helper.make_node(
        op_type,
        ["" if t is None else f"x{i}" for i, t in enumerate(types)],
        [f"y{i}" for i in range(outputs)],
        **plain,
    )
    graph = helper.make_graph(
        [node],
        "eager",
        [
            helper.make_tensor_value_info(f"x{i}", t, None)
            for i, t in enumerate(types)
            if t is not None
        ],
        # ONNX Runtime infers the outputs' types.
        [onnx.ValueInfoProto(name=f"y{i}") for i in range(outputs)],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=_IR_VERSION
    )


def _in_float32(model: Any) -> Any:
    """The model of one node, which takes bfloat16, with casts around the node.

    As `compiler.passes.widened` has it for graphs.
    """
    import onnx
    from onnx import helper

    typed = onnx.shape_inference.infer_shapes(model, check_type=True)
    (node,) = typed.graph.node
    before, after = [], []
    for value in typed.graph.input:
        if value.type.tensor_type.elem_type == _BFLOAT16:
            wide = f"{value.name}_wide"
            before.append(helper.make_node("Cast", [value.name], [wide], to=_FLOAT32))
            place = list(node.input).index(value.name)
            node.input[place] = wide
    for value in typed.graph.output:
        if value.type.tensor_type.elem_type == _BFLOAT16:
            wide = f"{value.name}_wide"
            after.append(helper.make_node("Cast", [wide], [value.name], to=_BFLOAT16))
            node.output[list(node.output).index(value.name)] = wide
    model = onnx.ModelProto()
    model.CopyFrom(typed)
    del model.graph.node[:]
    model.graph.node.extend([*before, node, *after])
    return model
