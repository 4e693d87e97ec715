"""Writes keras_families/FAMILY.npz: what Keras 3 makes of the programs in keras_families/FAMILY.py.

Run it in an environment with Keras 3 and TensorFlow:
``python tests/reference/make_keras_families.py [FAMILY ...] [--to FOLDER]``; all families by
default. `tests/peers` runs it again and compares.
"""

import argparse
import importlib
import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["COLUMNS"] = "80"
FAMILIES = Path(__file__).parent / "keras_families"
sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import keras  # noqa: E402
import numpy as np  # noqa: E402


def main(families: list[str], to: Path) -> None:
    """Run the families' programs and write their arrays."""
    every = sorted(p.stem for p in FAMILIES.glob("*.py") if p.stem != "common")
    for family in families or every:
        programs = importlib.import_module(f"tests.reference.keras_families.{family}").PROGRAMS
        arrays = {
            f"{program}/{name}": value
            for program, run in programs.items()
            for name, value in run(keras).items()
        }
        np.savez_compressed(to / f"{family}.npz", **arrays)
        print(f"{family}: {len(arrays)} arrays")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*")
    parser.add_argument("--to", type=Path, default=FAMILIES)
    given = parser.parse_args()
    main(given.families, given.to)
