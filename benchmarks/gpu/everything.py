"""All that only a GPU can tell, in one go: ``python -m benchmarks.gpu.everything RESULTS``.

Run from the repository's root, on a machine with an NVIDIA GPU, onnxruntime-gpu and pytest. It
installs nothing. In turn: what `onnxtape doctor` says, the tests marked gpu, the benchmarks at a
tiny size, and at full size, one workload after the other, the shortest first. Each has a time limit
of its own, and what one finds is written to the folder RESULTS as soon as it has ended.
"""

import subprocess
import sys
from pathlib import Path

from benchmarks.gpu.__main__ import PRECISIONS, without_cuda

#: By name: seconds at most, and the command's arguments after `python -m`.
STAGES: dict[str, tuple[int, list[str]]] = {
    "doctor": (60, ["onnxtape", "doctor"]),
    "tests": (420, ["pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]),
    "tiny": (300, ["benchmarks.gpu", "--size", "tiny", "--steps", "5"]),
    **{
        f"{workload}-{precision}": (
            300,
            ["benchmarks.gpu", "--workloads", workload, "--precisions", precision],
        )
        for workload in ("dcgan", "resnet", "gpt")
        for precision in PRECISIONS
    },
}


def run(name: str, folder: Path) -> bool:
    """Run one stage; whether it succeeded."""
    seconds, arguments = STAGES[name]
    if arguments[0] == "benchmarks.gpu":
        arguments = [*arguments, "--json", str(folder / f"{name}.json")]
    with (folder / f"{name}.txt").open("w") as log:
        try:
            command = [sys.executable, "-m", *arguments]
            ended = subprocess.run(
                command, stdout=log, stderr=subprocess.STDOUT, timeout=seconds
            ).returncode
        except subprocess.TimeoutExpired:
            ended = -1
            log.write(f"\nended after {seconds} s\n")
    last = (folder / f"{name}.txt").read_text().strip().splitlines()[-1:]
    print(f"{name}: {'well' if ended == 0 else f'ended with {ended}'}: {''.join(last)}", flush=True)
    return ended == 0


def main(argv: list[str] | None = None) -> int:
    """Run all stages; 1 where one failed."""
    given = sys.argv[1:] if argv is None else argv
    if len(given) != 1:
        print("say where the results go: python -m benchmarks.gpu.everything RESULTS")
        return 2
    if missing := without_cuda():
        print(f"There is nothing to find out here: {missing}", file=sys.stderr)
        return 1
    folder = Path(given[0])
    folder.mkdir(parents=True, exist_ok=True)
    failed = [name for name in STAGES if not run(name, folder)]
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
