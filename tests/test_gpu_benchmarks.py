"""The benchmarks of GPU size, tried at a tiny one: nothing is timed here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from rich.console import Console

from benchmarks.__main__ import main as benchmarks_main
from benchmarks.gpu import __main__ as program
from benchmarks.gpu import everything
from benchmarks.gpu.sizes import SIZES
from onnxtape.runtime.errors import ProviderError

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("workload", "precision"), [("gpt", "float16"), ("resnet", "float32"), ("dcgan", "float16")]
)
def test_our_step_of_each_workload(workload: str, precision: str) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu.worker", "onnxtape", workload, precision]
    made = subprocess.run([*command, "cpu", "tiny", "2"], cwd=ROOT, capture_output=True, text=True)
    found = json.loads(made.stdout)
    assert "error" not in found
    assert len(found["times"]) == 2
    assert np.isfinite(found["losses"]).all()
    if workload != "dcgan":  # Two models against each other: neither's loss need fall.
        assert found["losses"][-1] < found["losses"][0]


def test_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    measured = {
        "onnxtape": {"times": [0.002, 0.001, 0.003], "first": 1.5, "losses": []},
        "torch": {"times": [0.004], "first": 2.0, "losses": []},
        "torch.compile": {"error": "RuntimeError: no compiler"},
        "jax": {"absent": "No module named 'keras'"},
    }

    def measure(given: Any, framework: str, workload: str, precision: str) -> Any:
        assert (workload, precision, given.device) == ("gpt", "bfloat16", "cuda")
        return measured[framework]

    monkeypatch.setattr(program, "_measured", measure)
    monkeypatch.setattr(program, "without_cuda", lambda: None)
    monkeypatch.setattr(program, "Console", lambda **options: Console(width=150))
    to = tmp_path / "gpu.json"
    wanted = ["--workloads", "gpt", "--precisions", "bfloat16", "--json", str(to)]
    assert benchmarks_main(["--device", "cuda", *wanted]) == 1  # one failed
    out = capsys.readouterr().out
    assert "2.00" in out
    for text in ("RuntimeError: no compiler", "left out: No module named 'keras'", "1.00 - 3.00"):
        assert text in out
    assert json.loads(to.read_text()) == {"gpt bfloat16": measured}


def test_the_sizes_that_are_reported() -> None:
    full: Any = SIZES["full"]
    gpt, resnet, dcgan = full["gpt"], full["resnet"], full["dcgan"]
    assert (gpt.layers, gpt.width, gpt.length, gpt.batch) == (12, 768, 1024, 8)
    assert (resnet.blocks, resnet.pixels) == ((3, 4, 6, 3), 224)
    assert dcgan.batch == 256


def test_without_a_gpu_one_sentence_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(
        "onnxtape.runtime.session.resolve_providers", Mock(side_effect=ProviderError("no driver."))
    )
    assert benchmarks_main(["--device", "cuda"]) == 1
    assert capsys.readouterr() == ("", "There is nothing to measure here: no driver.\n")
    assert everything.main([str(tmp_path / "results")]) == 1
    assert capsys.readouterr() == ("", "There is nothing to find out here: no driver.\n")


def test_everything_in_one_go(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(everything, "without_cuda", lambda: None)
    stages = {"a": (60, ["onnxtape", "doctor"]), "b": (60, ["onnxtape", "no such command"])}
    monkeypatch.setattr(everything, "STAGES", stages)
    assert everything.main([str(tmp_path)]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("a: well: ")
    assert second.startswith("b: ended with 2: ")
    assert "onnxruntime" in (tmp_path / "a.txt").read_text()
    monkeypatch.setattr(everything, "STAGES", {"c": (0.01, ["onnxtape", "doctor"])})
    assert everything.main([str(tmp_path)]) == 1
    assert "ended after 0.01 s" in (tmp_path / "c.txt").read_text()
