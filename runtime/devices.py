"""Devices by name, and values that move between them.

Everything is moved by ONNX Runtime itself: by its own copies where Python has them, else by a
session of one Identity whose input and output are bound on the two devices. The latter works for
every provider and every dtype, bfloat16 included.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeAlias

from onnxtape.runtime.dtypes import DTYPES
from onnxtape.runtime.errors import ProviderError
from onnxtape.runtime.identity import identity_model
from onnxtape.runtime.providers import Providers, resolve_providers
from onnxtape.runtime.session import create_session
from onnxtape.runtime.values import bindings, copy_from_numpy, ort_device, to_numpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: A kind of device that Python can allocate on, and its number.
Device: TypeAlias = tuple[str, int]

CPU: Device = ("cpu", 0)
#: The kinds of device that values can stay on. Every other provider takes its inputs from the
#: host's memory and brings its results back there.
KINDS = frozenset({"cpu", "cuda"})

_BFLOAT16 = DTYPES["bfloat16"].onnx

# What ONNX Runtime calls the memory, in lower case.
_NAMES = {"gpu": "cuda"}
_PROVIDER_KINDS = {
    "CUDAExecutionProvider": "cuda",
    "TensorrtExecutionProvider": "cuda",
    "NvTensorRTRTXExecutionProvider": "cuda",
}


class _Used:
    """The number of the one device of each kind that this process uses."""

    numbers: dict[str, int] = {}  # noqa: RUF012 - of the process, as it is meant


def device_of(providers: Providers) -> Device:
    """Where a session with these providers keeps what it is bound to.

    Raises:
        ProviderError: see `resolve_providers`; or this process uses another device of that kind
            already. (ONNX Runtime's Python cannot tell on which of two a value lies.)
    """
    name, options = resolve_providers(providers)[0]
    kind = _PROVIDER_KINDS.get(name, "cpu")
    if kind == "cpu":
        return CPU
    number = int(options.get("device_id", "0"))
    used = _Used.numbers.setdefault(kind, number)
    if used != number:
        raise ProviderError(
            f"This process uses {kind}:{used} already and cannot use {kind}:{number} beside it: "
            f"run another process for it, or choose one device for all."
        )
    return kind, number


def number_of(kind: str) -> int:
    """The number of the one device of a kind that this process uses."""
    return _Used.numbers.get(kind, 0)


def memory_kind(name: str) -> str:
    """The kind of device that ONNX Runtime's name for some memory means; see `KINDS`."""
    lower = name.lower()
    return _NAMES.get(lower, lower)


def kind_of(value: Any) -> str:
    """The kind of device that an OrtValue lies on."""
    return memory_kind(value.device_name())


def is_on(value: Any, device: Device) -> bool:
    """Whether an OrtValue lies on the device."""
    return kind_of(value) == device[0]


def input_devices(session: Any) -> dict[str, Device | None]:
    """Where an InferenceSession reads each of its inputs; None is where Python cannot allocate.

    A value bound to an input on another device is copied there once, at binding: a later change of
    the value goes unseen. So memory that changes between runs belongs on this device, or has to be
    bound again for each run.
    """
    devices: dict[str, Device | None] = {}
    for node, memory in zip(session.get_inputs(), session.get_input_memory_infos(), strict=True):
        kind = memory_kind(memory.name)
        devices[node.name] = (kind, memory.device_id) if kind in KINDS else None
    return devices


def put(array: NDArray[Any], device: Device) -> Any:
    """A copy of an array as an OrtValue on the device."""
    return copy_from_numpy(array, *device)


def copy(value: Any, device: Device, into: Any = None) -> Any:
    """A copy of an OrtValue, on the device.

    Args:
        into: an OrtValue of the same dtype and shape there, which is overwritten and returned.
    """
    kind = kind_of(value)
    between = device if kind == "cpu" else (kind, number_of(kind))
    session = _mover(between, value.element_type())
    io = bindings().SessionIOBinding(session._sess)
    io.bind_ortvalue_input("x", value)
    if into is None:
        io.bind_output("y", ort_device(*device))
    else:
        io.bind_ortvalue_output("y", into)
    session._sess.run_with_iobinding(io, None)
    return io.get_outputs()[0] if into is None else into


def duplicate(value: Any) -> Any:
    """A copy of an OrtValue, where it lies."""
    kind = kind_of(value)
    if kind == "cpu":
        return copy_from_numpy(to_numpy(value))
    return copy(value, (kind, number_of(kind)))


def moved(value: Any, device: Device) -> Any:
    """The OrtValue itself where it lies on the device already, else a copy there."""
    return value if is_on(value, device) else copy(value, device)


def fetch(value: Any) -> NDArray[Any]:
    """An OrtValue's content in the host's memory; a view where it lies there already."""
    kind = kind_of(value)
    # Of bfloat16, for which NumPy has no name of its own, ONNX Runtime's own copy knows nothing.
    if kind != "cpu" and (kind not in KINDS or value.element_type() == _BFLOAT16):
        value = copy(value, CPU)
    return to_numpy(value)


@functools.cache
def _mover(device: Device, element_type: int) -> Any:
    return create_session(
        identity_model(element_type),
        _providers_of(device),
        optimize=False,
        threads=1,
        spin=False,
        shared_arena=True,
    )


def _providers_of(device: Device) -> Providers:
    kind, number = device
    return kind if kind == "cpu" else f"{kind}:{number}"
