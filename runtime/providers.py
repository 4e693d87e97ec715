"""Execution providers: from the names that people write to the list that ONNX Runtime wants.

This is also the one place of the room that imports onnxruntime, on first use, so that a missing
installation is explained once and in one way.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from onnxtape.runtime.errors import ProviderError

if TYPE_CHECKING:
    from types import ModuleType

ProviderOptions: TypeAlias = Mapping[str, object]
ProviderName: TypeAlias = str | tuple[str, ProviderOptions]
Providers: TypeAlias = ProviderName | Sequence[ProviderName] | None
ResolvedProviders: TypeAlias = list[tuple[str, dict[str, str]]]

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
            "Install it with `pip install onnxtape[cpu]`, or `pip install onnxtape[gpu]` for CUDA."
        ) from error
    if not hasattr(module, "InferenceSession"):
        raise ProviderError(
            "The package onnxruntime found here has no InferenceSession: its files are incomplete, "
            "which happens when onnxruntime and onnxruntime-gpu were both installed and one was "
            "removed. Uninstall both, then `pip install onnxtape[cpu]` (or `onnxtape[gpu]`)."
        )
    return module


def resolve_providers(providers: Providers = None) -> ResolvedProviders:
    """Turn the providers that a user names into ONNX Runtime's list, most wanted first.

    Args:
        providers: None for the CPU; or one of, or a sequence of: a short name ("cpu", "cuda",
            "tensorrt", "dml", ..., in any case), a short name with a device number ("cuda:0"),
            ONNX Runtime's full name ("CUDAExecutionProvider"), or a pair (any of these, options).

    Returns:
        Pairs (full name, options as strings). The CPU provider ends the list even when it was not
        named: ONNX Runtime gives it the operators for which the others have no kernel.

    Raises:
        ProviderError: a name is unknown or named twice, the installed onnxruntime was built
            without the provider, or onnxruntime is not installed.
    """
    if providers is None:
        wanted: Sequence[ProviderName] = ()
    elif isinstance(providers, str) or _is_pair(providers):
        wanted = (providers,)  # type: ignore[assignment]
    else:
        wanted = providers  # type: ignore[assignment]
    ort = load_onnxruntime()
    resolved: ResolvedProviders = []
    for item in wanted:
        name, options = _resolve(item, ort)
        if any(name == other for other, _ in resolved):
            raise ProviderError(f"providers={providers!r} names {name} twice; name it once.")
        resolved.append((name, options))
    if not any(name == _CPU for name, _ in resolved):
        resolved.append((_CPU, {}))
    return resolved


def primary_provider(providers: Providers = None) -> str:
    """The short name, such as "cpu" or "cuda", of the provider that is wanted most.

    Raises:
        ProviderError: see `resolve_providers`.
    """
    return _short(resolve_providers(providers)[0][0])


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
    available = ort.get_available_providers()
    if name not in available:
        raise ProviderError(
            f"{name} is not part of the onnxruntime {ort.__version__} installed here, which has "
            f"{', '.join(available)}. {_remedy(name)}"
        )
    return name, options


def _short(name: str) -> str:
    return name.removesuffix(_SUFFIX).lower()


def _full_name(written: str, ort: Any) -> str | None:
    """ONNX Runtime's name for what the user wrote, or None when there is no such provider."""
    if written.lower() in _ALIASES:
        return _ALIASES[written.lower()]
    key = written.lower().removesuffix(_SUFFIX.lower())
    # A provider that the program registered itself is available without being a built-in one.
    names = [*ort.get_all_providers(), *ort.get_available_providers()]
    return next((name for name in names if _short(name) == key), None)


def _remedy(name: str) -> str:
    if name in (_CUDA, _TENSORRT):
        return (
            "Install the CUDA build: `pip uninstall onnxruntime`, then "
            "`pip install onnxtape[gpu]` (the two share one module, so keep only one)."
        )
    return (
        "It needs the onnxruntime package that is built for it: see "
        "https://onnxruntime.ai/docs/execution-providers."
    )
