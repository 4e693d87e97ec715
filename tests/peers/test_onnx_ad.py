"""onnx-ad, another differentiator of ONNX graphs, finds the same gradients where it has a rule.

The models are ONNX's backend tests of single operators, in float32 on ONNX Runtime. Where the two
differ, `tests/conformance` has compared ours with central differences.
"""

from __future__ import annotations

import subprocess
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.compiler.graphs import Array
from tests.conformance.differences import FLOAT32
from tests.conformance.evaluators import onnx_runtime
from tests.conformance.left_out import left_out
from tests.conformance.node_cases import NodeCase, node_cases
from tests.conformance.node_tests import Prepared, accepted_sources, build, cotangent_name, prepare
from tests.peers.test_peers import PYTHON, require

pytestmark = pytest.mark.peers

#: Patterns of tests in which the two differ, and why.
DIFFERENT = {
    "test_attention_*": "onnx-ad has NaN where every key of a row is masked",
    "test_batchnorm_*": "onnx-ad has zero by the mean and the variance",
    "test_clip_min_greater_than_max": "onnx-ad gives min a share; max decides alone there",
    "test_det_*": "onnx-ad has zero",
    "test_l2normalization_axis_0": "onnx-ad has infinities where the norm is zero, we have zero",
    "test_onehot_*": "onnx-ad has zero by the values",
    "test_pow": "onnx-ad has NaN by the exponent where the base is zero",
}


def cases() -> list[NodeCase]:
    found = [case for of_operator in node_cases().values() for case in of_operator]
    return [case for case in found if not case.expanded and left_out(case) is None]


def in_float32(case: NodeCase) -> Prepared:
    return next(test for test in prepare(case) if test.precision is FLOAT32)


def ours(case: NodeCase, folder: Path) -> dict[str, Array]:
    """Our gradients; the model and its data go into the folder."""
    test = in_float32(case)
    sources, _ = accepted_sources(test)
    rng = np.random.default_rng(0)
    shapes = {name: np.shape(case.outputs[name]) for name in test.outputs}
    seeds = {k: rng.uniform(-1, 1, s).astype(np.float32) for k, s in shapes.items()}
    built = build(test, sources, seeds)
    feeds = test.feeds | {cotangent_name(k): seed for k, seed in seeds.items()}
    found = onnx_runtime(built.model)(feeds) if built.model.graph.output else {}
    onnx.save(test.model, folder / f"{case.name}.onnx")
    np.savez(folder / f"{case.name}.npz", **feeds)
    zeros = {k: np.zeros_like(test.feeds[k]) for k in sources}
    return zeros | {k: found[name] for k, name in built.gradients.items() if name is not None}


def test_onnx_ad_agrees(tmp_path: Path) -> None:
    require("onnx_ad", "onnxruntime")
    found: dict[str, dict[str, Array]] = {}
    for case in cases():
        try:
            found[case.name] = ours(case, tmp_path)
        except Exception:  # what ONNX Runtime has no kernel for
            (tmp_path / f"{case.name}.onnx").unlink(missing_ok=True)
    script = Path(__file__).with_name("onnx_ad_gradients.py")
    subprocess.run([PYTHON, str(script), str(tmp_path)], check=True)
    compared, different = 0, []
    for name, mine in found.items():
        path = tmp_path / f"{name}.onnx_ad.npz"
        if not path.exists():
            continue
        compared += 1
        with np.load(path) as theirs:
            if not all(close(mine[k], theirs[k]) for k in mine):
                different.append(name)
    unexplained = [n for n in different if not any(fnmatchcase(n, p) for p in DIFFERENT)]
    assert not unexplained
    assert all(any(fnmatchcase(n, p) for n in different) for p in DIFFERENT)
    assert compared > 550


def close(mine: Array, theirs: Array) -> bool:
    size = float(np.abs(mine[np.isfinite(mine)]).max(initial=0))
    return mine.shape == theirs.shape and np.allclose(mine, theirs, 1e-3, 1e-4 * size + 1e-6)
