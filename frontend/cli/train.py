"""`onnxtape train`: trains with an artifact; needs nothing but `onnxtape.runtime`."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxtape.cli.output import UsageError, progress, whole_number

if TYPE_CHECKING:
    from onnxtape.cli.arrays import Arrays
    from onnxtape.cli.position import Position
    from onnxtape.runtime import EvaluationSession, TensorEntry, TrainingSession

_DESCRIPTION = """\
Train with an artifact. Only onnxruntime, numpy and safetensors are needed.

The data are .npz files with an array for each batch input, by its name; where the step takes two
inputs, x and y, or Keras's x_train and y_train (x_val, x_test in validation), are found too.

The state goes to one file, which is replaced whole after every epoch. Ctrl-C saves and stops;
--resume goes on from there, to the bit."""


def add_parser(commands: Any) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "train",
        help="train with an artifact",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("artifact", type=Path, metavar="FOLDER", help="what `onnxtape build` or step.export wrote")
    add("--data", type=Path, required=True, metavar="FILE.npz", help="arrays to train on")
    add("--validation", type=Path, metavar="FILE.npz", help="arrays to validate on")
    add("--epochs", type=whole_number(1), default=1, metavar="N", help="in all; default: 1")
    add("--batch-size", type=whole_number(1), metavar="N", help="default: 32")
    add("--seed", type=whole_number(0), metavar="N", help="of the order; default: 0")
    add("--no-shuffle", action="store_true", help="take the samples in the order of the file")
    add(
        "--state",
        type=Path,
        metavar="FILE",
        help="where to save; default: FOLDER.trained.safetensors, beside the artifact",
    )
    add("--save-every", type=whole_number(1), default=1, metavar="N", help="epochs; default: 1")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on from the saved state")
    again.add_argument("--restart", action="store_true", help="begin anew, over a saved state")
    add("--export", type=Path, metavar="MODEL.onnx", help="write the trained model, at the end")
    add(
        "--provider",
        action="append",
        metavar="NAME",
        help="where to run, e.g. cuda; default: cpu",
    )
    add("--check-numerics", action="store_true", help="stop at the first NaN or infinity")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train, and report on each epoch."""
    from onnxtape.cli.arrays import fixed_batch_size, read_arrays
    from onnxtape.cli.position import Position
    from onnxtape.runtime import EvaluationSession, TrainingSession, read_artifact

    artifact = read_artifact(options.artifact)
    folder = options.artifact.resolve()
    path: Path = options.state or folder.with_name(f"{folder.name}.trained.safetensors")
    _require_place(path, options)
    session = TrainingSession(artifact, options.provider, check_numerics=options.check_numerics)
    arrays = read_arrays(options.data, session.inputs)
    validation = None
    if options.validation is not None:
        evaluation = EvaluationSession(artifact, options.provider)
        validation = evaluation, read_arrays(options.validation, evaluation.inputs, validation=True)
    count = len(next(iter(arrays.values())))
    fixed = fixed_batch_size(session.inputs)
    if fixed is not None and options.batch_size not in (None, fixed):
        raise UsageError(f"the step takes batches of {fixed}, not of {options.batch_size}")
    if options.resume:
        position = Position.restore(path, session)
        _require_same(position, options, count)
    else:
        size = fixed or options.batch_size or 32
        position = Position(options.seed or 0, size, not options.no_shuffle, count)
    training = Training(session, arrays, validation, fixed is not None)
    with _interrupts() as interrupted:
        while position.epoch < options.epochs:
            done = training.run_epoch(position, options.epochs, interrupted)
            if not done:
                break
            if position.epoch % options.save_every == 0:
                position.save(path, session)
        # Whoever presses Ctrl-C while this is written will have to wait for it.
        position.save(path, session)
    if interrupted:
        print(
            f"onnxtape: interrupted after {position.epoch} epochs and {position.batch} batches; "
            f"the state is in {path}, and --resume goes on from it",
            file=sys.stderr,
        )
        return 130
    print(f"{path}: the state after {position.epoch} epochs")
    if options.export is not None:
        session.export_inference(options.export)
        print(f"{options.export}: the trained model")
    return 0


class Training:
    """What is trained with, on and validated on.

    Args:
        validation: what evaluates, and on which arrays.
        drop_last: leave out a smaller batch at the end, since the step takes one size only.
    """

    def __init__(
        self,
        session: TrainingSession,
        arrays: Arrays,
        validation: tuple[EvaluationSession, Arrays] | None,
        drop_last: bool,
    ) -> None:
        self._session = session
        self._arrays = arrays
        self._validation = validation
        self._drop_last = drop_last

    def run_epoch(self, position: Position, epochs: int, interrupted: Sequence[int]) -> bool:
        """Train for what is left of an epoch; returns whether it is complete."""
        from onnxtape.cli.arrays import batches
        from onnxtape.runtime.totals import Totals

        session, start = self._session, time.perf_counter()
        if position.batch == 0:
            position.sums = {}
            session.reset_metrics()
        totals = Totals(_scalars(session.outputs), session.manifest.accumulated, position.sums)
        order = position.order()[position.batch * position.batch_size :]
        total = -(-position.samples // position.batch_size)
        title = f"epoch {position.epoch + 1}/{epochs}"
        with progress(title, total, position.batch) as advance:
            for batch in batches(
                self._arrays, position.batch_size, order, drop_last=self._drop_last
            ):
                if interrupted:
                    return False
                results = session.step(**batch)
                totals.add(results, len(next(iter(batch.values()))))
                position.batch += 1
                advance(_listed(totals.results()))
        shown = totals.results()
        position.epoch, position.batch = position.epoch + 1, 0
        for name, value in self._validated(position).items():
            shown[f"validation {name}"] = value
        print(f"{title}: {_listed(shown)}, {time.perf_counter() - start:.1f} s", flush=True)
        return True

    def _validated(self, position: Position) -> dict[str, Any]:
        import numpy as np

        from onnxtape.cli.arrays import batches

        if self._validation is None:
            return {}
        evaluation, arrays = self._validation
        order = np.arange(len(next(iter(arrays.values()))))
        found = evaluation.evaluate(
            self._session.state_dict(),
            batches(arrays, position.batch_size, order, drop_last=self._drop_last),
        )
        return {entry.name: found[entry.name] for entry in _scalars(evaluation.outputs)}


def _scalars(outputs: Sequence[TensorEntry]) -> list[TensorEntry]:
    return [entry for entry in outputs if not entry.shape]


def _listed(results: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {float(value):.4f}" for name, value in results.items())


def _require_place(path: Path, options: argparse.Namespace) -> None:
    """What cannot be written in the end should be known now, not after hours of training."""
    from onnxtape.runtime.errors import CheckpointError
    from onnxtape.runtime.files import new_sibling

    for target in filter(None, (path, options.export)):
        new_sibling(target).unlink()
    if path.exists() and not (options.resume or options.restart):
        raise CheckpointError(
            f"{path} holds the state of an earlier training: --resume goes on from it, --restart "
            "begins anew, --state chooses another file"
        )


def _require_same(position: Position, options: argparse.Namespace, count: int) -> None:
    """What decides the order of the samples must be as it was."""
    from onnxtape.runtime.errors import CheckpointError

    wanted = {
        "--batch-size": (options.batch_size, position.batch_size),
        "--seed": (options.seed, position.seed),
    }
    for name, (given, before) in wanted.items():
        if given not in (None, before):
            raise CheckpointError(f"the training had {name} {before}, not {given}; leave it out")
    if options.no_shuffle and position.shuffle:
        raise CheckpointError("the training did shuffle; leave --no-shuffle out")
    if count != position.samples:
        raise CheckpointError(
            f"the training had {position.samples} samples, but {options.data} holds {count}"
        )


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Collects the interrupts (Ctrl-C) meanwhile, so that no step is torn; a second one stops."""
    seen: list[int] = []

    def note(number: int, frame: object) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)
