"""The packages that onnxtape needs, for what, and how a missing one is reported."""

from __future__ import annotations

import importlib.util

#: Enough to train from an artifact, beside ONNX Runtime.
TO_TRAIN = ("numpy", "safetensors")
#: What models, steps and artifacts are made with.
TO_BUILD = ("onnx", "onnx-ir", "onnx-shape-inference", "networkx", "ml_dtypes")


def missing_sentence(error: ImportError) -> str | None:
    """What an import that failed lacks, and the line that installs it; None if it is not ours."""
    module = (error.name or "").partition(".")[0]
    needed = {name.replace("-", "_"): name for name in TO_BUILD}
    if module not in needed:
        return None
    missing = " ".join(name for other, name in needed.items() if not _is_there(other))
    return (
        f"{needed[module]} is not installed: training from an artifact goes without it, everything "
        f"else needs it: pip install {missing or needed[module]}"
    )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # blocked by a finder, or by None in sys.modules
        return False
