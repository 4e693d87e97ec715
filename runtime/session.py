"""Opening ONNX Runtime sessions: options, threads, memory, and errors that can be read.

Threads. A session with more than one thread owns a pool of them, so a program with hundreds of
one-node sessions would own hundreds of pools. ONNX Runtime can share one pool between sessions,
but a process that sets it up can no longer open an ordinary session (its call
``InferenceSession(path)`` fails), and a library must not do that to its host. So small sessions
are opened with ``threads=1``, which creates no thread at all, and only sessions with real work
get a pool. Where the program itself has set up the shared pool, our sessions use it.

Memory. ``shared_arena=True`` takes memory from one arena instead of one per session: two hundred
one-node sessions that each make a 32 MB tensor then keep 32 MB, not 6.4 GB.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxtape.runtime.denormals import can_flush, unchanged
from onnxtape.runtime.errors import ExecutionError, ProviderError
from onnxtape.runtime.providers import (
    Providers,
    ResolvedProviders,
    load_onnxruntime,
    may_do_without,
    plugin_devices,
    resolve_providers,
    warn_left_out,
)

if TYPE_CHECKING:
    import onnxruntime as ort

_THREADS_VARIABLE = "ONNXTAPE_NUM_THREADS"
# Whatever ONNX Runtime would log as an error it also raises, and we pass that on.
_LOG_FATAL_ONLY = 4
_GLOBAL_POOL_IN_USE = "use_per_session_threads must be false"
_SENTENCE_LIMIT = 400


class _Settings:
    """What the whole process shares. Each field changes at most a few times."""

    num_threads: int | None = None
    program_has_global_pool = False
    arena_registered = False


def set_num_threads(count: int | None) -> None:
    """Set how many threads each session opened from now on may use within one operator.

    Args:
        count: at least 1; or None for the default, which is the environment variable
            ONNXTAPE_NUM_THREADS if it is set, else one thread for each core that this process
            may use.

    Raises:
        ValueError: `count` is less than 1.
    """
    if count is not None and count < 1:
        raise ValueError(f"The number of threads must be at least 1, got {count}.")
    _Settings.num_threads = count


def get_num_threads() -> int:
    """How many threads a session may use; 0 leaves the choice to ONNX Runtime.

    Raises:
        ValueError: ONNXTAPE_NUM_THREADS is set to something other than a positive whole number.
    """
    if _Settings.num_threads is not None:
        return _Settings.num_threads
    written = os.environ.get(_THREADS_VARIABLE)
    if written:
        if not written.strip().isdecimal() or int(written) < 1:
            raise ValueError(
                f"The environment variable {_THREADS_VARIABLE} must be a whole number of at "
                f"least 1, got {written!r}."
            )
        return int(written)
    # Left to itself, ONNX Runtime pins one thread to each physical core, and a pinned thread whose
    # core is busy with something else keeps the whole step waiting. As many threads, not pinned,
    # had a median step 2 to 30 percent shorter on a shared machine.
    if hasattr(os, "sched_getaffinity"):
        return len({_siblings(cpu) for cpu in os.sched_getaffinity(0)})
    return 0


def thread_count() -> int:
    """How many threads a session may use; where that is left to ONNX Runtime, as many as the
    machine has processors."""
    return get_num_threads() or os.cpu_count() or 1


def _siblings(cpu: int) -> str:
    """The hardware threads that share a core with this one, as Linux writes them."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text().strip()
    except OSError:
        return str(cpu)


def create_session(
    model: bytes | str | Path,
    providers: Providers = None,
    *,
    optimize: bool = True,
    merge_equal: bool = True,
    in_order: bool = False,
    threads: int | None = None,
    spin: bool = True,
    spin_between_runs: bool = True,
    shared_arena: bool = False,
    memory_pattern: bool = True,
    optimized_path: Path | None = None,
    profile_prefix: str | None = None,
    note_placement: bool = False,
) -> ort.InferenceSession:
    """Open an ONNX Runtime session.

    Args:
        model: a serialized ONNX model, or the path of one.
        providers: see `resolve_providers`; None is the CPU.
        optimize: let ONNX Runtime rewrite the graph (fusion, constant folding, layout).
        merge_equal: let those rewrites merge nodes that compute the same; False keeps apart what
            is computed again on purpose.
        in_order: run the nodes in the order of the file as far as their inputs allow
            (ExecutionOrder.PRIORITY_BASED), not in ONNX Runtime's own topological order.
        threads: threads within one operator. None is `get_num_threads()`; 1 creates no thread,
            which is right for sessions whose operators are small.
        spin: whether idle threads of the pool wait busily between operators. It makes a step of
            many small operators up to 1.6x faster on a machine with nothing else to do, and slows
            everything else down on one that has; False is right for sessions that run now and then.
        spin_between_runs: whether they do so for a while after a run too; False where other threads
            work then.
        shared_arena: take memory from the arena of the process, not from one of this session.
        memory_pattern: take all memory of a run as one block, from the second run on. It spares
            steps of many small operators up to a sixth of their time; but the arena has then grown
            for the first run too, and holds about twice what a step of large operators needs.
        optimized_path: also write the graph as optimized to this file.
        note_placement: let the session say which provider runs each node; see `placement`.
        profile_prefix: record a profile; `end_profiling` on the session returns its path, which
            starts with this prefix.

    Raises:
        ExecutionError: ONNX Runtime refused the model; the message holds its reason.
        ProviderError: a provider is missing, or could not be started on this machine.
    """
    ort = load_onnxruntime()
    resolved = resolve_providers(providers)
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_FATAL_ONLY
    options.intra_op_num_threads = get_num_threads() if threads is None else threads
    options.inter_op_num_threads = 1
    # Threads take what is left of an operator in ever smaller parts. Of 131 thousand numbers a Mul
    # takes 10 microseconds on two threads instead of 17, a step of gpt or resnet 2 percent less.
    options.add_session_config_entry("session.dynamic_block_base", "1")
    if can_flush():
        # For the threads of the pool; the thread that runs it does so by `flushing`.
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
    if not spin:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not spin_between_runs:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if in_order:
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    options.enable_mem_pattern = memory_pattern
    if shared_arena:
        _register_shared_arena(ort)
        options.add_session_config_entry("session.use_env_allocators", "1")
    if optimized_path is not None:
        options.optimized_model_filepath = os.fspath(optimized_path)
    if note_placement:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    options.use_per_session_threads = not _Settings.program_has_global_pool
    source = model if isinstance(model, bytes) else os.fspath(model)
    disabled = [] if merge_equal else ["CommonSubexpressionElimination"]
    try:
        session = _open(ort, source, options, resolved, disabled)
    except ProviderError:
        raise
    except Exception as error:
        if _GLOBAL_POOL_IN_USE not in str(error):
            raise execution_error(error, "ONNX Runtime cannot load this graph") from error
        _Settings.program_has_global_pool = True
        options.use_per_session_threads = False
        try:
            session = _open(ort, source, options, resolved, disabled)
        except Exception as again:
            raise execution_error(again, "ONNX Runtime cannot load this graph") from again
    _require_providers(session, resolved, providers)
    return session


def execution_error(
    error: Exception, doing: str, failures: Mapping[str, str] | None = None
) -> ExecutionError:
    """The ExecutionError for an exception of ONNX Runtime: what failed, and its useful sentence.

    Args:
        error: what ONNX Runtime raised.
        doing: the start of the message, e.g. "ONNX Runtime cannot load this graph".
        failures: what it means when nodes fail, by their names; said instead.
    """
    sentence = useful_sentence(str(error))
    for node, meaning in (failures or {}).items():
        if f" node '{node}': " in sentence:
            sentence = meaning
            break
    return ExecutionError(f"{doing}: {sentence}")


def useful_sentence(message: str) -> str:
    """Cut the C++ source positions, signatures and status codes out of ONNX Runtime's message.

    The node's operator and name stay when the message holds them.
    """
    text = " ".join(message.split()).removeprefix("Error in execution: ")
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    failing = re.match(
        r"Non-zero status code returned while running (\S+) node\. Name:'(.*?)' Status Message: ",
        text,
    )
    node = ""
    if failing:
        operator, name = failing.groups()
        node = f"{operator} node '{name}': " if name else f"{operator} node: "
        text = text[failing.end() :]
    text = _without_source_position(text)
    if len(text) > _SENTENCE_LIMIT:
        text = text[:_SENTENCE_LIMIT].rstrip() + " ..."
    return node + text


def _without_source_position(text: str) -> str:
    """Drop a leading "file.cc:12 type function(arguments) condition was false."."""
    position = re.match(r"\S+\.(?:cc|cpp|h|hpp|cu|cuh):\d+ ", text)
    if not position:
        return text
    text = text[position.end() :]
    # An assertion ends its signature and condition with these words.
    _, found, after = text.partition(" was false. ")
    if found and after:
        return after
    opening = text.find("(")
    depth = 0
    for index in range(opening, len(text)) if opening >= 0 else ():
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return text[index + 1 :].strip() or text
    return text


@unchanged()
def _open(
    ort: Any,
    source: bytes | str,
    options: Any,
    resolved: ResolvedProviders,
    disabled: Sequence[str],
) -> Any:
    # Without its fallback ONNX Runtime raises at once, where it would else print to the console
    # and try again on the CPU.
    rest: dict[str, Any] = {"enable_fallback": 0, "disabled_optimizers": disabled}
    plugins = {name: plugin_devices(name) for name, _ in resolved}
    if not any(plugins.values()):
        # With a device_id ONNX Runtime first looks among plugin devices, and prints that none is.
        named = [(name, _without(given, "device_id", "0")) for name, given in resolved]
        return ort.InferenceSession(source, options, providers=named, **rest)
    for name, given in resolved:
        if plugins[name]:
            given, devices = _chosen(plugins[name], given)
            options.add_provider_for_devices(devices, given)
        elif not name.startswith("CPU"):
            options.add_provider(name, given)
    return ort.InferenceSession(source, options, **rest)


def _without(options: dict[str, str], key: str, default: str) -> dict[str, str]:
    """The options but for one that says what holds anyway."""
    return {k: v for k, v in options.items() if (k, v) != (key, default)}


def _chosen(devices: list[Any], options: dict[str, str]) -> tuple[dict[str, str], list[Any]]:
    """A plugin's devices, or the one that `device_id` counts, and the options without it."""
    options = dict(options)
    number = options.pop("device_id", None)
    if number is None:
        return options, devices[:1]
    if int(number) >= len(devices):
        raise ProviderError(
            f"{devices[0].ep_name} has {len(devices)} devices here, none with number {number}."
        )
    return options, [devices[int(number)]]


def _require_providers(session: Any, resolved: ResolvedProviders, wanted: Providers) -> None:
    """ONNX Runtime leaves out a provider whose libraries cannot be loaded, without an error."""
    for name, _ in resolved:
        if name in session.get_providers():
            continue
        problem = (
            "it could not be started on this machine, and ONNX Runtime does not say why. Check "
            "its driver, and that the libraries it needs can be found"
        )
        if not may_do_without(wanted, name):
            raise ProviderError(f"{name} cannot be used here: {problem}.")
        warn_left_out(name, problem)


def _register_shared_arena(ort: Any) -> None:
    """Create the process's CPU arena once. Only sessions that ask for it use it."""
    if _Settings.arena_registered:
        return
    memory = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    # 1 extends the arena by what is asked for, not by doubling.
    config = ort.OrtArenaCfg({"arena_extend_strategy": 1})
    ort.create_and_register_allocator(memory, config)
    _Settings.arena_registered = True
