"""What one does after the guide, on short settings: the examples learn, and print what they say."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from tests.examples.running import run
from tests.examples.test_pictures import losses_in


def test_char_gpt_learns_and_writes(tmp_path: Path) -> None:
    output, made = run("char_gpt", "--epochs", "3", "--steps", "12", "--folder", str(tmp_path))
    alphabet = set(made["write_text"]())
    losses = losses_in(output)
    assert losses[-1] < losses[0] < 1.1 * np.log(len(alphabet))
    written = output.splitlines()[-1]
    assert written.startswith("The ")
    assert len(written) == len("The ") + 40
    assert set(written) <= alphabet


def test_lstm_tagger_learns(tmp_path: Path) -> None:
    output, _ = run("lstm_tagger", "--epochs", "3", "--folder", str(tmp_path))
    accuracies = [float(x) for x in re.findall(r"test accuracy ([\d.]+)", output)]
    assert len(accuracies) == 3
    # A word alone tells the tag less often; the words around it do.
    assert accuracies[-1] > 0.95
    assert re.search(r"^  \w+/determiner ", output, re.MULTILINE)


def test_custom_optimizer_learns_as_well_as_others(tmp_path: Path) -> None:
    output, _ = run("custom_optimizer", "--epochs", "3", "--folder", str(tmp_path))
    found = {
        name: (losses, float(accuracy))
        for name, losses, accuracy in re.findall(
            r"^(\w+) +loss ([\d., ]+); test accuracy ([\d.]+)$", output, re.MULTILINE
        )
    }
    assert list(found) == ["SGD", "Adam", "Yogi"]
    for name, (losses, accuracy) in found.items():
        first, *_, last = map(float, losses.split(", "))
        assert last < 0.6 * first, name
        assert accuracy > 0.8, name


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    output, _ = run("accumulation", "--epochs", "2", "--folder", str(tmp_path))
    first, second = losses_in(output)
    assert second < first
    match = re.search(r"largest difference of a weight ([\d.e-]+)$", output.strip())
    assert match is not None
    assert float(match[1]) < 1e-4
    assert re.search(r", [1-9]\d* of \d+ steps clipped$", output, re.MULTILINE)
