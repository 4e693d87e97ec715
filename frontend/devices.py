"""Where variables live and operations run: `ot.device`."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from onnxtape import context
from onnxtape.compiler.operators import lowest_opset
from onnxtape.runtime.captured import without_capture
from onnxtape.runtime.devices import CPU, Device, copy, device_of, is_on, kind_of, put
from onnxtape.runtime.eager import EagerExecutor
from onnxtape.runtime.providers import Providers, primary_provider
from onnxtape.runtime.values import from_dlpack

#: The opset whose operators run eagerly.
OPSET = 21


class Place:
    """A device, and the execution providers that run operators on it.

    Args:
        providers: what ONNX Runtime is asked for; None is its CPU provider.
        bound: results are bound to the device, also where that is the CPU.

    Raises:
        ProviderError: a provider cannot be used here.
    """

    def __init__(self, providers: Providers, *, bound: bool = False) -> None:
        self.providers = providers
        self.device: Device = CPU if providers is None else device_of(providers)
        self._bound = bound or self.device != CPU

    @functools.cached_property
    def provider(self) -> str:
        """The short name of the provider that is wanted most."""
        return primary_provider(self.providers)

    @functools.cached_property
    def executor(self) -> EagerExecutor:
        """What runs single operators here."""
        return EagerExecutor(
            OPSET,
            without_capture(self.providers),
            lowest_opset=lowest_opset,
            device=self.device if self._bound else None,
        )

    def put(self, array: Any) -> Any:
        """An array as an OrtValue of its own on the device."""
        return put(array, self.device)


class Places:
    """The places in use. While there is only the CPU, nobody needs to look where values lie."""

    #: ONNX Runtime's CPU provider as it is.
    cpu = Place(None)
    default = cpu
    by_kind: ClassVar[dict[str, Place]] = {"cpu": cpu}
    #: Whether values may lie anywhere else than in ONNX Runtime's ordinary CPU memory.
    several = False

    @classmethod
    def use(cls, place: Place) -> None:
        """Note that values may lie there from now on."""
        cls.by_kind.setdefault(place.device[0], place)
        cls.several = cls.several or place._bound

    @classmethod
    def reset(cls) -> None:
        """Back to the CPU alone."""
        cls.default = cls.cpu
        cls.by_kind.clear()
        cls.by_kind["cpu"] = cls.cpu
        cls.several = False


def current() -> Place:
    """Where variables are created, and operations run whose operands are nowhere yet."""
    return context.state.place or Places.default


class device:
    """Create variables, and run operations, on a device inside a `with` block.

    An operation whose operands lie on a device runs there; others run on the current device. A
    compiled function without `providers` runs where its variables live when it is first called.

    Args:
        name: "cpu", "cuda" or "cuda:0", or the name of another execution provider, which then
            runs what it can (its values stay in the host's memory).
        **options: of the provider, as ONNX Runtime calls them: `use_tf32=0`,
            `enable_cuda_graph=1`, ...

    Raises:
        ProviderError: it cannot be used here; the message says what is missing, and what installs
            it.
    """

    def __init__(self, name: str, **options: Any) -> None:
        self._place = place_of(name, **options)
        self._outer: list[Place | None] = []

    def __enter__(self) -> device:
        self._outer.append(context.state.place)
        context.state.place = self._place
        Places.use(self._place)
        return self

    def __exit__(self, *exception: object) -> None:
        context.state.place = self._outer.pop()


@contextmanager
def on_host() -> Iterator[None]:
    """Operations inside run on ONNX Runtime's CPU provider: those on few numbers, while tracing."""
    state = context.state
    outer, state.place = state.place, Places.cpu
    try:
        yield
    finally:
        state.place = outer


def set_default_device(name: str, **options: Any) -> None:
    """Create variables, and run operations, on a device from now on; see `ot.device`.

    Variables that there are already stay where they are, until a compiled function that runs
    elsewhere needs them.
    """
    place = place_of(name, **options)
    Places.default = place
    Places.use(place)


def place_of(name: str, **options: Any) -> Place:
    """The place of a provider with these options; the same for the same."""
    return _place_of(name, tuple(sorted(options.items())))


@functools.cache
def _place_of(name: str, options: tuple[tuple[str, Any], ...]) -> Place:
    return Place((name, dict(options)) if options else name)


def place_for(values: Sequence[Any]) -> Place:
    """Where an operation on these OrtValues runs: where one of them lies, or the current place."""
    for value in values:
        if value is not None and (kind := kind_of(value)) != "cpu":
            return place_on(kind)
    return current()


def executor_for(values: Sequence[Any]) -> EagerExecutor:
    """What runs an operation on these OrtValues."""
    return place_for(values).executor


def place_on(kind: str) -> Place:
    """The place of a kind of device, on which a value was found."""
    place = Places.by_kind.get(kind)
    if place is None:
        place = place_of(kind)
        Places.use(place)
    return place


def beside(value: Any, other: Any) -> Any:
    """The OrtValue `value`, on the device of `other`."""
    place = place_on(kind_of(other))
    return value if is_on(value, place.device) else copy(value, place.device)


def lies_on_device(x: Any) -> bool:
    """Whether another library's tensor lies on a device that values can stay on, such as a GPU."""
    if not hasattr(x, "__dlpack_device__") or isinstance(x, np.ndarray):
        return False
    return int(x.__dlpack_device__()[0]) in _DLPACK_KINDS


def taken(x: Any) -> Any:
    """An OrtValue of another library's tensor, as it lies on its device."""
    kind, number = x.__dlpack_device__()
    place = place_of(f"{_DLPACK_KINDS[int(kind)]}:{number}")
    Places.use(place)
    return from_dlpack(x)


# DLDeviceType in dlpack.h.
_DLPACK_KINDS = {2: "cuda"}


def place_of_state(values: Sequence[Any]) -> Place:
    """Where a step with this state runs that nobody has told where: with its state, if that is on a
    device, else on the current one."""
    if Places.several:
        for value in values:
            if (kind := kind_of(value)) != "cpu":
                return place_on(kind)
    return current()
