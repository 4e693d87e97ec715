"""Writes keras_dtypes.npz: what Keras 3 makes of the calls in keras_dtypes.py.

Run it in an environment with Keras 3 and TensorFlow, the backend on which Keras keeps 64-bit
types: ``python tests/reference/make_keras_dtypes.py [PATH]``. `tests/peers` runs it again and
compares.
"""

import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path.insert(0, str(Path(__file__).parent))

import keras
import keras_dtypes
import numpy as np

if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("keras_dtypes.npz")
    np.savez_compressed(path, **keras_dtypes.table(keras))
