"""The frameworks that are compared: what to import, what must be installed, what to measure."""

import os
import shutil
from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """One framework in one form."""

    label: str
    modules: tuple[str, ...]
    """What its users import."""
    distributions: tuple[str, ...]
    """What must be installed; it and all that it needs make up the size."""
    optional: tuple[str, ...] = ()
    """What is used, and counted, where it is installed."""
    needs_compiler: bool = False
    """Whether it calls a C++ compiler at run time."""
    loads: tuple[str, ...] = ()
    """What its first step imports besides; it is part of what the framework itself takes."""


PEERS = {
    "onnxtape": Peer(
        "onnxtape",
        ("onnxtape",),
        ("onnxtape", "onnxruntime"),
        loads=("onnxruntime", "onnxtape.concrete"),
    ),
    "torch": Peer("PyTorch eager", ("torch",), ("torch", "numpy")),
    "torch-compile": Peer(
        "PyTorch torch.compile", ("torch",), ("torch", "numpy"), needs_compiler=True
    ),
    "jax": Peer("JAX jit", ("jax",), ("jax",), optional=("optax",)),
    "tensorflow": Peer("TensorFlow tf.function", ("tensorflow", "keras"), ("tensorflow", "keras")),
    "ort-training": Peer(
        "ONNX Runtime training",
        ("onnxruntime.training.api",),
        ("onnxruntime-training-cpu", "onnx", "torch"),
    ),
}


def has_compiler() -> bool:
    """Whether there is a C++ compiler where ``torch.compile`` looks for one."""
    candidates = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++", "cl"]
    return any(shutil.which(candidate) for candidate in candidates)


def environment(threads: int, cache: str) -> dict[str, str]:
    """Environment for a framework's process: equal threads, the CPU, and empty caches in `cache`.

    `threads` goes to OpenMP and the BLAS libraries (PyTorch), to TensorFlow's two pools, and as
    ``NPROC`` to XLA (JAX).
    """
    count = str(threads)
    return os.environ | {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "TF_NUM_INTRAOP_THREADS": count,
        "TF_NUM_INTEROP_THREADS": count,
        "NPROC": count,
        "CUDA_VISIBLE_DEVICES": "-1",
        "JAX_PLATFORMS": "cpu",
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "XDG_CACHE_HOME": cache,
        "TORCHINDUCTOR_CACHE_DIR": os.path.join(cache, "inductor"),
        "TRITON_CACHE_DIR": os.path.join(cache, "triton"),
    }
