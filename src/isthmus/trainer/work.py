"""One worker's whole run: rounds, rows and evaluations around the loop of the command line."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isthmus.errors import InvalidInput
from isthmus.progress import progress
from isthmus.records import RunWriter, spare_path
from isthmus.trainer.checkpoint.manifest import checkpoints, number_of
from isthmus.trainer.config import Own, TrainConfig
from isthmus.trainer.config.again import FOLDER
from isthmus.trainer.config.flags import record
from isthmus.trainer.local.loop import Loop, autocast
from isthmus.trainer.observe.account import Account, resident_bytes
from isthmus.trainer.observe.evaluate import (
    CALIBRATION_MOST,
    PARTS,
    Evaluation,
    Evaluator,
    best_factor,
    line_search_record,
)
from isthmus.trainer.observe.rows import Report, Rows
from isthmus.trainer.plan.plan import Plan, Work, plan
from isthmus.trainer.plan.show import show
from isthmus.trainer.rounds.agree import agree
from isthmus.trainer.store.whole import fingerprint
from isthmus.trainer.strategies import Worker, part_of
from isthmus.trainer.task.examples import Examples, Positions
from isthmus.trainer.task.setup import Setup
from isthmus.trainer.training import Training
from isthmus.trainer.wire.exchange import TYPES, Link, drive
from isthmus.trainer.wire.group import join
from isthmus.trainer.wire.meter import Meter
from isthmus.trainer.wire.tell import NotDone, tell

_log = logging.getLogger("isthmus")


def work(setup: Setup, writer: RunWriter | None, start: int | None = None) -> dict[str, Any]:
    """Be one worker of a run; worker 0 writes a row a round and returns the summary, the others return {}.

    Args:
        setup: data and network.
        writer: of the rows, on worker 0.
        start: bytes of this process before the data were read and the network described.
    """
    link = join()
    _agree(setup.config, link, setup.network.device)
    plans = _plans(setup, link)
    if writer is not None:
        show(plans)
    with _training(setup) as training:
        run = _Run(setup, training, writer)
        status = run.rounds()
        account = training.account()
        return run.summary(status, account, plans, start)


def export(setup: Setup, source: Path, target: Path) -> None:
    """Be one worker that writes the network of a checkpoint.

    Args:
        setup: data and network.
        source: the checkpoint, or a folder of some.
        target: the file.
    """
    _agree(setup.config, join(), setup.network.device)
    with _training(setup) as training:
        training.resume(source)
        _Run(setup, training, None).export(target)


def _plans(setup: Setup, link: Link) -> list[Plan]:
    """Return what every worker will need in memory; each works out its own."""
    config, network = setup.config, setup.network
    wire = None if config.wire is None else TYPES[config.wire]
    part = part_of(config.strategy, Worker(link, network, config.seed, wire))
    own = plan(part, network, _intended(setup, link))
    told = drive(tell(own.numbers(), link, network.device), link, Meter())
    return [Plan.of(numbers) for numbers in told]


def _intended(setup: Setup, link: Link) -> Work:
    """Return what a worker does with its module: steps on batches of its share, evaluations on the test part."""
    step, objective, shares, device = setup.config.step, setup.objective, setup.shares, setup.network.device
    nowhere = torch.device("meta")
    share, held_out, test = (part(nowhere) for part in (partial(shares.of, link.index), shares.held_out, shares.test))
    trained = share.batch(np.arange(step.batch_size // step.accumulate))
    tested = test.batch(next(test.pieces(parts=PARTS)))
    measured = share.batch(next(_calibration(share, link.workers)))

    def loss(module: nn.Module) -> Tensor:
        with autocast(step.autocast, device):
            return objective.training_loss(module, trained.without_values(device))

    def look(network: nn.Module) -> None:
        if any(True for _ in network.buffers()):  # statistics of norms
            batch = measured.without_values(device)
            network(*batch.args, **batch.kwargs)
        batch = tested.without_values(device)
        with autocast(step.autocast, device):
            output = network(*batch.args, **batch.kwargs)
        objective.tested(output, batch)

    return Work(setup.config.optimizer.make, loss, look, sum(part.held_bytes for part in (share, held_out, test)))


def _training(setup: Setup) -> Training:
    config = setup.config
    return Training(
        setup.network,
        optimizer=config.optimizer.make,
        strategy=config.strategy,
        local_steps=config.local_steps,
        seed=config.seed,
        keep_state=config.keeps_state,
        wire=config.wire,
    )


class _Run:
    def __init__(self, setup: Setup, training: Training, writer: RunWriter | None) -> None:
        config, worker, device = setup.config, training.worker, training.device
        self.config, self.setup, self.training = config, setup, training
        share = setup.shares.of(worker, device)
        self.loop = Loop(config, training, setup.objective, share)
        self.evaluator = Evaluator(
            training,
            setup.objective,
            config.step.autocast,
            config.evaluation.readout,
            setup.shares.held_out(device),
            setup.shares.test(device),
        )
        self.rows = None if writer is None else Rows(config, writer)
        training.recalibrate(_Calls(share, list(_calibration(share, training.workers))))
        link = join()
        folders = [] if writer is None else [str(each) for each in (writer.path, writer.spare) if each is not None]
        told = drive(tell(folders, link, device), link, Meter())
        self.places = [Path(each) / FOLDER for each in told[0]]  # for checkpoints: the run's own, and a spare one
        self.saved, self.saving_took = time.perf_counter(), 0.0

    def rounds(self) -> str:
        """Make all rounds; return how it ended."""
        config, training = self.config, self.training
        if config.resume:
            self._go_on()
        else:
            evaluation, reports = self.evaluator(), self._reports(0.0)
            if self.rows is not None:
                self.rows.first(evaluation, reports)
        begun, steps_by_round = training.round, config.steps_by_round
        quiet = self.rows is None
        with nullcontext(_nothing) if quiet else progress(_title(config), len(steps_by_round)) as advance:
            advance(begun)
            for number, steps in enumerate(steps_by_round[begun:], start=begun + 1):
                loss = self.loop.round(number - 1, steps)
                training.merge()
                account, reports = training.account(), self._reports(loss)
                diverged = not all(math.isfinite(report.loss) for report in reports)
                seen = self.evaluator() if config.evaluated(number) or diverged else None
                note = "" if self.rows is None else self.rows.add(number, steps, account, reports, seen)
                advance(1, note)
                if diverged:
                    return "diverged"
                if reports[0].save:
                    self._save()
        return "finished"

    def _save(self) -> None:
        """Write a checkpoint into the first place where that is possible; training goes on where there is none.

        A run's folder that somebody has removed is not made again.
        """
        begun = time.perf_counter()
        state = None if self.rows is None else self.rows.state()
        for place in self.places:
            own = place == self.places[0]
            try:
                self.training.save(place, state, self.config.saving.keep, parents=not own)
            except NotDone as error:
                self._warn(f"no checkpoint in {place}, training goes on: {error}")
            else:
                if not own:
                    self._warn(f"checkpoint of round {self.training.round} is in {place} instead")
                break
        self.saved = time.perf_counter()
        self.saving_took = self.saved - begun

    def _warn(self, line: str) -> None:
        if self.rows is not None:
            _log.warning("isthmus: %s", line)

    def _go_on(self) -> None:
        """Be where the last checkpoint of the run was written."""
        last = max(self.places, key=lambda place: max(map(number_of, checkpoints(place)), default=-1))
        state, training = self.training.resume(last), self.training
        account = training.account()
        if self.rows is not None:
            self.rows.go_on(self.rows.writer.rewind(training.round), state, account)

    def _reports(self, loss: float) -> list[Report]:
        since = time.perf_counter() - self.saved
        save = bool(self.places) and self.config.saving.due(self.training.round, since, self.saving_took)
        own = Report(loss, self.loop.operations, os.getpid(), *self.training.setup_bytes, save)
        return [Report(*numbers) for numbers in self.training.gather(*astuple(own))]

    def export(self, place: Path) -> tuple[dict[float, Evaluation], float]:
        """Save the network to use; return which factors on its scale were tried, and the one that was taken."""
        tried = self.evaluator.search()
        factor = best_factor(tried) if self.config.evaluation.readout else 1.0
        metadata = {} if self.setup.front is None else self.setup.front.metadata()
        try:
            self.training.export(place, metadata, factor)
        except (InvalidInput, NotDone) as error:
            if len(self.places) < 2:
                raise
            self._warn(f"{error}; it goes to {self.places[1].parent}")
            self.training.export(self._spare_for(place.name), metadata, factor)
        return tried, factor

    def _spare_for(self, name: str) -> Path:
        """Return where in the spare folder a file goes; worker 0 writes it, for the others any path will do."""
        folder = self.places[1].parent
        if self.rows is None:
            return folder / name
        with suppress(OSError):  # found again, and said, by whoever writes there
            return spare_path(folder, name)
        return folder / name

    def _peaks(self, start: int | None) -> list[int | None]:
        """Return by how much every worker has grown at most, with what libraries load at their first use; None where
        nobody knows."""
        peak = None if start is None else resident_bytes(peak=True)
        told = self.training.gather(*([] if start is None or peak is None else [max(0, peak - start)]))
        return [int(each[0]) if each else None for each in told]

    def summary(
        self, status: str, account: Account, plans: Sequence[Plan], start: int | None
    ) -> dict[str, Any]:
        """Save the network and return the summary, on worker 0."""
        training, rows = self.training, self.rows
        place = Path("model.safetensors") if rows is None else rows.writer.path / "model.safetensors"
        tried, factor = self.export(place)
        peaks = self._peaks(start)
        with training.whole(on="root", factor=factor) as model:
            if model is None or rows is None:
                return {}
            assert rows.last is not None
            tensors = [*model.parameters(), *model.buffers()]
            last = rows.rows[-1]
            return {
                "status": status,
                "test_accuracy": rows.last.accuracy,
                "test_loss": rows.last.loss,
                "test_metric": rows.last.metric,
                "test_targets": rows.last.targets,
                "held_out_accuracy": tried[factor].accuracy,
                "rounds": last["round"],
                "samples": last["samples"],
                "seconds": time.perf_counter() - rows.start,
                "model_parameters": sum(parameter.numel() for parameter in model.parameters()),
                "worker_parameters": list(account.parameters),
                "sent_bytes": rows.sums("sent_bytes"),
                "received_bytes": rows.sums("received_bytes"),
                "viewing_bytes": list(account.viewing_bytes),
                "compute_seconds": rows.sums("compute_seconds"),
                "communicate_seconds": rows.sums("communicate_seconds"),
                "wait_seconds": list(account.waiting_seconds),
                "worker_memory_bytes": list(account.memory_bytes),
                "model_bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
                "planned_memory_bytes": [each.total for each in plans],
                "measured_peak_bytes": peaks,
                "flops_per_worker": int(max(rows.operations)),
                "cut_axes": self._cut_axes(),
                "eval_scale": training.scale,
                "line_search": line_search_record(tried),
                "weights_sha256": fingerprint(model),
            }

    def _cut_axes(self) -> dict[str, int]:
        cut = self.setup.network.coupling.cut_axes if self.config.strategy.cuts else ()
        return {axis.name: axis.size for axis in cut}


def _calibration(share: Examples, workers: int) -> Iterator[Positions]:
    """Return what a worker measures the statistics of norms on."""
    return share.pieces(-(-CALIBRATION_MOST // workers))


@dataclass(frozen=True, eq=False)
class _Calls(Sequence[Any]):
    """Calls of the network on some examples, made when they are asked for: few networks have norms to measure."""

    examples: Examples
    pieces: list[Positions]

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, number: Any) -> Any:
        batch = self.examples.batch(self.pieces[number])
        return batch.args, batch.kwargs


def _agree(config: TrainConfig, link: Link, device: torch.device) -> None:
    """Refuse workers that were started with different flags."""
    settings = {name: value for name, value in record(config).items() if name not in ("out", "executor")}
    drive(agree(settings, link, device), link, Meter())


def _title(config: TrainConfig) -> str:
    model = f"{config.model.shown} on " if isinstance(config.model, Own) else ""
    return f"train {model}{config.data_shown}: {config.strategy.title}, {config.workers} workers"


def _nothing(steps: int = 1, note: str = "") -> None: ...


