"""One worker's whole run: rounds, rows and evaluations around the loop of the command line."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from copy import deepcopy
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from isthmus.errors import InvalidInput
from isthmus.nets import Coupling
from isthmus.progress import progress
from isthmus.records import RunWriter, spare_path
from isthmus.strategies import ClassCut
from isthmus.trainer.checkpoint.manifest import checkpoints, number_of
from isthmus.trainer.config import Own, TrainConfig
from isthmus.trainer.config.again import FOLDER
from isthmus.trainer.local.loop import Loop
from isthmus.trainer.membership.live import LiveFile
from isthmus.trainer.observe.account import Account, grown_bytes
from isthmus.trainer.observe.evaluate import (
    Evaluation,
    Evaluator,
    best_factor,
    calibration,
    line_search_record,
)
from isthmus.trainer.observe.rows import Report, Rows
from isthmus.trainer.prelude import Prelude
from isthmus.trainer.rounds.events import Stopped
from isthmus.trainer.rounds.members import CameBack
from isthmus.trainer.rounds.rounds import TooFew
from isthmus.trainer.store.whole import saved_digest
from isthmus.trainer.task.balanced import balanced_of
from isthmus.trainer.task.examples import Examples, Positions
from isthmus.trainer.task.routed import common_feed, routed_feed
from isthmus.trainer.task.setup import Setup
from isthmus.trainer.task.shares import Feed
from isthmus.trainer.training import Training
from isthmus.trainer.wire.tell import NotDone

_log = logging.getLogger("isthmus")
_TRIED = 10  # of a run's rounds one is spent on trying each own share of a class cut


def work(setup: Setup, record: Callable[[], RunWriter] | None, start: int | None = None) -> dict[str, Any]:
    """Be one worker of a run; worker 0 writes a row a round and returns the summary, the others return {}.

    Of a run that was told to stop all return the status.

    Args:
        setup: data and network.
        record: returns the writer of the rows, when this worker has to write; None where it cannot.
        start: bytes of this process before the data were read and the network described.
    """
    prelude = Prelude(setup, record)
    with _training(setup, prelude) as training:
        run = _Run(setup, training, record, prelude)
        status = run.rounds()
        account = training.account()
        summary = run.summary(status, account, start)
        training.watch(_unwatched)
        if run.writes:
            run.live.remove()
        return summary


def export(setup: Setup, source: Path, target: Path) -> None:
    """Be one worker that writes the network of a checkpoint.

    Args:
        setup: data and network.
        source: the checkpoint, or a folder of some.
        target: the file.
    """
    prelude = Prelude(setup, None, trains=False)
    with _training(setup, prelude) as training:
        training.resume(source)
        _Run(setup, training, None, prelude).export(target)


def _training(setup: Setup, prelude: Prelude) -> Training:
    config = setup.config
    return Training(
        setup.network,
        optimizer=config.optimizer.make,
        strategy=config.strategy,
        local_steps=config.local_steps,
        seed=config.seed,
        keep_state=config.keeps_state,
        wire=config.wire,
        overlap=config.overlap,
        rounds=len(config.steps_by_round),
        faults=config.faults,
        prelude=prelude,
    )


class _Run:
    def __init__(
        self, setup: Setup, training: Training, record: Callable[[], RunWriter] | None, prelude: Prelude
    ) -> None:
        config, device = setup.config, training.device
        self.config, self.setup, self.training, self.prelude = config, setup, training, prelude
        self.recorded, self.steps_by_round = record is not None, config.steps_by_round
        self.rows = Rows(config, record or _nowhere)
        training.hand_over(self._state)
        if training.handed is not None:
            self._catch_up()
        self.loop = Loop(config, training, setup.objective, setup.shares.of(training.seat, device))
        self.own_share, self.routed = math.nan, 0
        if isinstance(config.strategy, ClassCut):
            handed = training.handed
            self._route(config.strategy.share if handed is None else handed["own_share"])
        elif config.strategy.same_batches:
            self._take(common_feed(setup.shares, training.seat, config.step.batch_size, config.seed, device))
        elif config.strategy.balances:
            order = balanced_of(setup.shares, training.seat, config.step.batch_size, config.seed)
            self.loop.order = order.at
        self.evaluator = Evaluator(
            training,
            setup.objective,
            config.step.autocast,
            config.evaluation.readout,
            setup.shares.held_out(device),
            setup.shares.test(device),
        )
        training.recalibrate(_Calls(self.loop.share, list(calibration(self.loop.share, config.workers))))
        self.places = [folder / FOLDER for folder in prelude.folders]  # for checkpoints: the run's own, a spare one
        self.saved, self.saving_took, self.told = time.perf_counter(), 0.0, 0
        self.live = LiveFile(lambda: next(iter(prelude.folders), None), len(config.steps_by_round))
        training.watch(self.live.write)

    @property
    def writes(self) -> bool:
        """Whether this worker writes the record."""
        return self.recorded and self.training.worker == 0

    def rounds(self) -> str:
        """Make all rounds; return how it ended."""
        training = self.training
        try:
            self._first()
        except CameBack:
            self._catch_up()
        rounds = len(self.steps_by_round)
        shown = progress(_title(self.config), rounds, beside=self._workers) if self.writes else nullcontext(_nothing)
        with shown as advance:
            advance(training.round)
            while training.round < rounds:
                try:
                    ended = self._round(training.round, advance)
                except CameBack:
                    self._catch_up()
                else:
                    if ended is not None:
                        return ended
        return "finished"

    def _workers(self) -> object:
        """Return what each worker does, for a terminal; None where they take turns, or before they were heard."""
        from isthmus.trainer.observe.workers import table  # rich, which nobody needs without a terminal

        return table(self.live.workers) if self.live.workers else None

    def _first(self) -> None:
        if self.config.resume and self.training.handed is None:
            self._go_on()
        elif self.training.handed is None:
            if isinstance(self.config.strategy, ClassCut):
                self._choose_share(self.config.strategy.shares)
            evaluation, account, reports = self.evaluator(), self.training.account(), self._reports(0.0, 0)
            self.rows.first(evaluation, account, reports, self.writes)

    def _route(self, own_share: float) -> None:
        """Have a share of every batch drawn from this worker's own classes."""
        config, training, shares = self.config, self.training, self.setup.shares
        assert training.deal is not None
        feed, chosen = routed_feed(
            shares, training.deal, training.seat, config.step.batch_size, own_share, config.seed, training.device
        )
        self.own_share = own_share
        self._take(feed)
        training.route(chosen)

    def _take(self, feed: Feed) -> None:
        """Train on other samples than this worker's own share."""
        self.loop.share, self.loop.order = feed.examples, feed.at
        self.routed = feed.sent * feed.examples.held_bytes // max(1, feed.examples.count)

    def _choose_share(self, shares: Sequence[float]) -> None:
        """Take the own share with which the network foretells most held-out data after a tenth of the rounds.

        Each is tried from the same first weights, with which training then begins.
        """
        if len(shares) == 1:
            self._route(shares[0])
            return
        training, found = self.training, dict[float, tuple[float, float]]()
        begun = deepcopy(training.state_dict())
        for share in shares:
            self._route(share)
            for number, steps in enumerate(self.steps_by_round[: max(1, len(self.steps_by_round) // _TRIED)]):
                self.loop.round(number, steps)
                training.merge()
            seen = self.evaluator.search()[1.0]
            known = math.isfinite(seen.accuracy)
            found[share] = (seen.accuracy if known else 0.0, -seen.loss if math.isfinite(seen.loss) else -math.inf)
            training.load_state_dict(deepcopy(begun))
        self._route(max(found, key=found.__getitem__))

    def _catch_up(self) -> None:
        """Know what the others have done without this worker."""
        handed = self.training.handed
        self.prelude.catch_up(handed["prelude"])
        self.rows.go_on(handed["rows"], handed["state"], None)

    def _round(self, number: int, advance: Callable[..., None]) -> str | None:
        """Make one round; return how the run ended, if it did."""
        config, training = self.config, self.training
        steps = self.steps_by_round[number]
        try:
            loss, made = self.loop.round(number, steps)
            training.merge()
        except (Stopped, TooFew) as error:
            self._save()
            if isinstance(error, TooFew):
                raise
            return "interrupted"
        account, reports = training.account(), self._reports(loss, made)
        stopped = any(report.stop for report in reports)
        if training.round == number:  # nobody had made a step yet when all were told to stop
            if stopped:
                self._save()
            return "interrupted" if stopped else None
        number = training.round
        training.say(loss / max(1, made))
        refused = self._refused(number - 1)
        diverged = not all(math.isfinite(each.loss) for each in reports if each.seat not in refused)
        looks = config.evaluated(number) or diverged
        seen = self.evaluator() if looks and not stopped else None
        note = self.rows.add(number, steps, account, reports, seen, self.writes, refused)
        self._tell_events(reports)
        advance(1, note)
        if diverged:
            return "diverged"
        if reports[0].save or stopped:
            self._save()
        return "interrupted" if stopped else None

    def _refused(self, number: int) -> set[int]:
        """Return the seats whose blocks were refused in a round that has just been closed."""
        new = self.training.events[self.told :]
        return {event.seat for event in new if event.what == "refused" and event.round == number}

    def _tell_events(self, reports: list[Report]) -> None:
        """Write what happened to workers since the last round; of one that was refused, its loss, which no row has."""
        new = self.training.events[self.told :]
        self.told += len(new)
        losses = {report.seat: report.loss / max(1, report.steps) for report in reports}
        for event in new if self.writes else ():
            loss = f" (its loss: {losses.get(event.seat, math.nan):.4g})" if event.what == "refused" else ""
            self.rows.writer.event(event.what, event.text + loss, event.round, event.seat, self.rows.seconds)

    def _state(self) -> dict[str, Any]:
        return {"rows": self.rows.rows, "state": self._extra(), "prelude": self.prelude.state(),
                "own_share": self._extra()["own_share"]}

    def _extra(self) -> dict[str, Any]:
        """Return what rows do not say, and which share was chosen."""
        return {**self.rows.state(), "own_share": self.own_share if math.isfinite(self.own_share) else None}

    def _save(self) -> None:
        """Write a checkpoint into the first place where that is possible; training goes on where there is none.

        A run's folder that somebody has removed is not made again.
        """
        begun = time.perf_counter()
        for place in self.places:
            own = place == self.places[0]
            try:
                self.training.save(place, self._extra(), self.config.saving.keep, parents=not own)
            except NotDone as error:
                self._warn(f"no checkpoint in {place}, training goes on: {error}")
            else:
                if not own:
                    self._warn(f"checkpoint of round {self.training.round} is in {place} instead")
                break
        self.saved = time.perf_counter()
        self.saving_took = self.saved - begun

    def _warn(self, line: str) -> None:
        if self.writes:
            _log.warning("isthmus: %s", line)

    def _go_on(self) -> None:
        """Be where the last checkpoint of the run was written."""
        last = max(self.places, key=lambda place: max(map(number_of, checkpoints(place)), default=-1))
        state, training = self.training.resume(last), self.training
        account = training.account()
        rows = self.rows.writer.rewind(training.round) if self.writes else []
        self.rows.go_on(training.tell(rows), state, account)
        if isinstance(self.config.strategy, ClassCut):
            self._route(state["own_share"])

    def _reports(self, loss: float, made: int) -> list[Report]:
        since, training = time.perf_counter() - self.saved, self.training
        save = bool(self.places) and self.config.saving.due(training.round, since, self.saving_took)
        setup = training.setup_bytes
        own = Report(loss, made, self.loop.operations, training.seat, os.getpid(), *setup, save, training.stopping)
        return [Report(*numbers) for numbers in training.gather(*astuple(own))]

    def export(self, place: Path) -> tuple[Path, dict[float, Evaluation], float]:
        """Save the network to use; return where, which factors on its scale were tried, and which was taken."""
        tried = self.evaluator.search()
        factor = best_factor(tried)
        metadata = {} if self.setup.front is None else self.setup.front.metadata()
        try:
            path = self.training.export(place, metadata, factor)
        except (InvalidInput, NotDone) as error:
            if len(self.places) < 2:
                raise
            self._warn(f"{error}; it goes to {self.places[1].parent}")
            path = self.training.export(self._spare_for(place.name), metadata, factor)
        return path, tried, factor

    def _spare_for(self, name: str) -> Path:
        """Return where in the spare folder a file goes; worker 0 writes it, for the others any path will do."""
        folder = self.places[1].parent
        if not self.writes:
            return folder / name
        with suppress(OSError):  # found again, and said, by whoever writes there
            return spare_path(folder, name)
        return folder / name

    def _peaks(self, start: int | None) -> list[int | None]:
        """Return by how much every worker has grown at most; None where nobody knows."""
        grown = grown_bytes(start, self.training.device)
        told = self.training.gather(*([] if grown is None else [grown]))
        return [int(each[0]) if each else None for each in told]

    def summary(self, status: str, account: Account, start: int | None) -> dict[str, Any]:
        """Save the network and return the summary, on worker 0."""
        training, rows, folders = self.training, self.rows, self.prelude.folders
        if status == "interrupted":
            return {"status": status, "error": "interrupted"}
        place = (folders[0] if folders else Path()) / "model.safetensors"
        path, tried, factor = self.export(place)
        served = self._served()
        peaks = self._peaks(start)
        seats = account.seats
        by_class = self._by_class(seats)
        with training.whole(on="root", factor=factor) as model:
            if model is None or not self.writes:
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
                "seconds": rows.seconds,
                "model_parameters": sum(parameter.numel() for parameter in model.parameters()),
                "worker_parameters": rows.by_seat(account.parameters, seats),
                "sent_bytes": rows.sums("sent_bytes"),
                "received_bytes": rows.sums("received_bytes"),
                "viewing_bytes": rows.by_seat(account.viewing_bytes, seats),
                "copying_bytes": rows.by_seat(account.copying_bytes, seats),
                "ahead_bytes": rows.by_seat(account.ahead_bytes, seats),
                "compute_seconds": rows.sums("compute_seconds"),
                "communicate_seconds": rows.sums("communicate_seconds"),
                "wait_seconds": rows.by_seat(account.waiting_seconds, seats),
                "worker_memory_bytes": rows.by_seat(account.memory_bytes, seats),
                "model_bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
                "planned_memory_bytes": [each.plan.total for each in self.prelude.loads],
                "planned": self.prelude.forecast.planned,
                "measured_peak_bytes": rows.by_seat(peaks, seats, None),
                "device": training.device.type,
                "flops_per_worker": int(max(rows.operations)),
                "cut_axes": {} if served is None else {axis.name: axis.size for axis in served.cut_axes},
                "whole_axes": {} if served is None else served.left_whole,
                **by_class,
                "capacities": training.capacities,
                "eval_scale": training.scale,
                "line_search": line_search_record(tried),
                "weights_sha256": saved_digest(path, (name for name, _ in model.named_parameters())),
            }

    def _by_class(self, seats: Sequence[int]) -> dict[str, Any]:
        """Return what is known of a cut of the classes: the share that was taken, and the bytes of the samples that
        are sent to each worker once, where each has had its share of the data alone."""
        strategy = self.config.strategy
        if not (strategy.routed or strategy.same_batches):
            return {}
        routed = [int(each[0]) for each in self.training.gather(self.routed)]
        chosen = {"own_share": self.own_share} if strategy.routed else {}
        return {**chosen, "routed_bytes": self.rows.by_seat(routed, seats)}

    def _served(self) -> Coupling | None:
        """Return which axes are cut for so many workers; None where the strategy cuts none."""
        law = self.config.strategy.dealt
        return None if law is None else self.setup.network.coupling.serving(self.config.workers, law)


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


def _title(config: TrainConfig) -> str:
    model = f"{config.model.shown} on " if isinstance(config.model, Own) else ""
    return f"train {model}{config.data_shown}: {config.strategy.title}, {config.workers} workers"


def _nowhere() -> RunWriter:
    raise AssertionError("this worker has no record to write")


def _unwatched(known: object) -> None: ...


def _nothing(steps: int = 1, note: str = "") -> None: ...
