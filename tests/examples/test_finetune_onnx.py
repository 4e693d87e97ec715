"""examples/finetune_onnx.py, as a command with warnings as errors."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples" / "finetune_onnx.py"


def test_both_ways_learn_the_new_digits(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", str(SCRIPT), "--epochs", "5"],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    old, before, head, lora = map(float, re.findall(r"accuracy ([\d.]+)\n", run.stdout))
    assert old > 0.95
    assert before < 0.4
    assert min(head, lora) > 0.8
    assert "adapters of body/kernel, neck/kernel, head/kernel: 916 of 5769" in run.stdout
    assert list(tmp_path.iterdir()) == []
