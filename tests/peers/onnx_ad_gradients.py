"""What onnx-ad makes of the models in a folder; run with the peers' environment.

    python tests/peers/onnx_ad_gradients.py FOLDER

Each NAME.onnx comes with NAME.npz: the model's inputs, and under "cotangent of OUTPUT" those of
its outputs. Writes NAME.onnx_ad.npz, the gradients by input, or NAME.error, why there are none.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx_ad import reverse


def gradients(model: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The vector-Jacobian products, in ONNX Runtime."""
    prefix = "cotangent of "
    seeds = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    feeds = {k: v for k, v in arrays.items() if not k.startswith(prefix)}
    sources = [k for k, v in feeds.items() if v.dtype == np.float32]
    backward = reverse(model, sources, list(seeds), prefix="adj_", layout="onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        backward.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    # The last axis counts the seeds.
    feeds |= {f"adj_{k}": seed[..., None] for k, seed in seeds.items()}
    names = [f"adj_{k}" for k in sources]
    found = session.run(names, feeds)
    return {k: g[..., 0] for k, g in zip(sources, found, strict=True)}


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    for path in sorted(folder.glob("*.onnx")):
        try:
            with np.load(path.with_suffix(".npz")) as stored:
                arrays = dict(stored)
            found = gradients(onnx.load(path), arrays)
        except Exception as error:
            path.with_suffix(".error").write_text(f"{type(error).__name__}: {error}")
        else:
            np.savez(path.with_suffix(".onnx_ad.npz"), **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
