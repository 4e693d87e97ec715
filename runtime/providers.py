"""Execution providers: from the names that people write to the list that ONNX Runtime wants.

This is also the one place of the room that imports onnxruntime, on first use, so that a missing
installation is explained once and in one way.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from onnxtape.runtime.cuda_setup import INSTALL, cuda_problem
from onnxtape.runtime.errors import ProviderError, ProviderFallbackWarning

if TYPE_CHECKING:
    from types import ModuleType

ProviderOptions: TypeAlias = Mapping[str, object]
ProviderName: TypeAlias = str | tuple[str, ProviderOptions]
Providers: TypeAlias = ProviderName | Sequence[ProviderName] | None
ResolvedProviders: TypeAlias = list[tuple[str, dict[str, str]]]

_PACKAGE = __name__.partition(".")[0]
_SUFFIX = "ExecutionProvider"
_CPU = "CPU" + _SUFFIX
_CUDA = "CUDA" + _SUFFIX
_TENSORRT = "Tensorrt" + _SUFFIX

# Providers whose option `device_id` says which device of several they use.
_NUMBERED = frozenset(
    name + _SUFFIX for name in ("CUDA", "Tensorrt", "ROCM", "MIGraphX", "Dml", "CANN")
)
_ALIASES = {"gpu": _CUDA, "directml": "Dml" + _SUFFIX, "trt": _TENSORRT}


def load_onnxruntime() -> ModuleType:
    """Return the module onnxruntime, imported on the first call.

    Raises:
        ProviderError: it is not installed, or its library cannot be loaded.
    """
    try:
        module = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ProviderError(
            f"onnxtape runs graphs with ONNX Runtime, which cannot be imported here ({error}). "
            f"For the CPU: `pip install onnxruntime`; for CUDA: {INSTALL}."
        ) from error
    if not hasattr(module, "InferenceSession"):
        raise ProviderError(
            "The package onnxruntime found here has no InferenceSession: its files are incomplete, "
            "which happens when onnxruntime and onnxruntime-gpu were both installed and one was "
            "removed. Uninstall both, then, for the CPU: `pip install onnxruntime`; for CUDA: "
            f"{INSTALL}."
        )
    return module


def resolve_providers(providers: Providers = None) -> ResolvedProviders:
    """Turn the providers that a user names into ONNX Runtime's list, most wanted first.

    Args:
        providers: None for the CPU; or one of, or a sequence of: a short name ("cpu", "cuda",
            "tensorrt", "dml", ..., in any case), a short name with a device number ("cuda:0"),
            ONNX Runtime's full name ("CUDAExecutionProvider"), or a pair (any of these, options),
            whose options are passed on as they are. Providers of libraries that the program has
            registered (`onnxruntime.register_execution_provider_library`) count too.

    Returns:
        Pairs (full name, options as strings). The CPU provider ends the list even when it was not
        named: ONNX Runtime gives it the operators for which the others have no kernel. A provider
        that cannot be used here is left out, with one warning, if others are named after it.

    Raises:
        ProviderError: a name is unknown or named twice, the provider cannot be used here and no
            other is named after it, or onnxruntime is not installed.
    """
    wanted = _as_sequence(providers)
    ort = load_onnxruntime()
    resolved: ResolvedProviders = []
    for i, item in enumerate(wanted):
        name, options = _resolve(item, ort)
        if any(name == other for other, _ in resolved):
            raise ProviderError(f"providers={providers!r} names {name} twice; name it once.")
        problem = _problem(name, ort)
        if problem is None:
            resolved.append((name, options))
        elif i == len(wanted) - 1:
            raise ProviderError(f"{name} cannot be used here: {problem}.")
        else:
            warn_left_out(name, problem)
    if not any(name == _CPU for name, _ in resolved):
        resolved.append((_CPU, {}))
    return resolved


def may_do_without(providers: Providers, name: str) -> bool:
    """Whether others are named after the provider with this full name, to fall back on."""
    ort = load_onnxruntime()
    return any(_resolve(item, ort)[0] == name for item in _as_sequence(providers)[:-1])


def warn_left_out(name: str, problem: str) -> None:
    """Warn that a provider is not used, once in a process."""
    if name not in _left_out:
        _left_out.add(name)
        warnings.warn(
            f"{name} cannot be used here, and the next provider is: {problem}",
            ProviderFallbackWarning,
            stacklevel=_levels_to_the_caller(),
        )


def _levels_to_the_caller() -> int:
    """The `stacklevel`, for our caller, of the nearest frame outside this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level


_left_out: set[str] = set()


def plugin_devices(name: str) -> list[Any]:
    """The devices (`OrtEpDevice`) of a provider whose library the program has registered."""
    ort = load_onnxruntime()
    if name in ort.get_available_providers() or not hasattr(ort, "get_ep_devices"):
        return []
    return [device for device in ort.get_ep_devices() if device.ep_name == name]


def primary_provider(providers: Providers = None) -> str:
    """The short name, such as "cpu" or "cuda", of the provider that is wanted most.

    Raises:
        ProviderError: see `resolve_providers`.
    """
    return _short(resolve_providers(providers)[0][0])


def _as_sequence(providers: Providers) -> Sequence[ProviderName]:
    if providers is None:
        return ()
    if isinstance(providers, str) or _is_pair(providers):
        return (providers,)  # type: ignore[return-value]
    return providers  # type: ignore[return-value]


def _is_pair(value: object) -> bool:
    """Whether `value` is one (name, options) pair and not a sequence of names."""
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], Mapping)
    )


def _resolve(item: object, ort: Any) -> tuple[str, dict[str, str]]:
    """One full name with its options, for one name as the user wrote it."""
    written: str
    given: ProviderOptions
    if isinstance(item, str):
        written, given = item, {}
    elif _is_pair(item):
        written, given = item  # type: ignore[misc]
    else:
        raise ProviderError(
            f"A provider is a name such as 'cpu' or 'cuda:0', or a pair (name, options); "
            f"got {item!r}."
        )
    options = {str(key): str(value) for key, value in given.items()}
    short, colon, number = written.partition(":")
    name = _full_name(short, ort)
    if name is None:
        raise ProviderError(
            f"No execution provider is called {written!r}. Known ones: "
            f"{', '.join(_short(full) for full in ort.get_all_providers())}."
        )
    if colon:
        if name not in _NUMBERED or not number.isdecimal():
            raise ProviderError(
                f"{written!r} is not a device: write {_short(name)!r}"
                + (f" or '{_short(name)}:0'." if name in _NUMBERED else ", which takes no number.")
            )
        if options.setdefault("device_id", number) != number:
            raise ProviderError(
                f"{written!r} and the option device_id={options['device_id']} disagree."
            )
    return name, options


def _problem(name: str, ort: Any) -> str | None:
    """Why the provider cannot be used here, with what to do; None if it can, as far as is known
    before a session is opened."""
    if name in (_CUDA, _TENSORRT):
        return cuda_problem(ort)
    available = ort.get_available_providers()
    if name in available or plugin_devices(name):
        return None
    return (
        f"it is not part of the onnxruntime {ort.__version__} installed here, which has "
        f"{', '.join(available)}, and no library that was registered brings it. It needs the "
        "onnxruntime package that is built for it, or its plugin package: see "
        "https://onnxruntime.ai/docs/execution-providers"
    )


def _short(name: str) -> str:
    return name.removesuffix(_SUFFIX).lower()


def _full_name(written: str, ort: Any) -> str | None:
    """ONNX Runtime's name for what the user wrote, or None when there is no such provider."""
    if written.lower() in _ALIASES:
        return _ALIASES[written.lower()]
    key = written.lower().removesuffix(_SUFFIX.lower())
    # A provider that the program registered itself is available without being a built-in one.
    names = [*ort.get_all_providers(), *ort.get_available_providers()]
    if hasattr(ort, "get_ep_devices"):
        names += [device.ep_name for device in ort.get_ep_devices()]
    return next((name for name in names if _short(name) == key), None)
