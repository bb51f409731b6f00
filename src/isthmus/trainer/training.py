"""Around a loop of one's own: the loop stays as it is, isthmus opens and closes the rounds around its steps."""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Subset

from isthmus.errors import InvalidInput, WorkerError, check_choice, check_integer
from isthmus.nets.check.verdict import Verdict
from isthmus.partitions import Law
from isthmus.partitions.classes import ClassDeal
from isthmus.randomness import generator
from isthmus.strategies import ClassCut, Strategy, strategy_of
from isthmus.trainer.checkpoint.acts import choosing, last_rows, writing
from isthmus.trainer.checkpoint.read import Checkpoint
from isthmus.trainer.checkpoint.standing import Standing
from isthmus.trainer.config.faults import Faults
from isthmus.trainer.config.run import check_overlap, check_wire
from isthmus.trainer.local.heap import passing
from isthmus.trainer.local.optimizer import adopt, forget
from isthmus.trainer.local.pace import Pace
from isthmus.trainer.local.recent import Recent
from isthmus.trainer.local.sharded import local
from isthmus.trainer.membership.link import Change, Elastic, RunOver, join
from isthmus.trainer.membership.monitor import Heard
from isthmus.trainer.observe.account import Account, held_bytes
from isthmus.trainer.rounds.agree import agree, named
from isthmus.trainer.rounds.events import Event, Stopped
from isthmus.trainer.rounds.members import CameBack, Members
from isthmus.trainer.rounds.news import News
from isthmus.trainer.rounds.rounds import Done, Rounds, Stop, TooFew, Wish
from isthmus.trainer.store.rehome import Rows
from isthmus.trainer.store.view import View
from isthmus.trainer.store.whole import check_path, save
from isthmus.trainer.strategies import Part, State, Worker, part_of
from isthmus.trainer.task.balanced import Balanced
from isthmus.trainer.task.network import Network, describe
from isthmus.trainer.task.routed import Batches, Common, Routed, routed
from isthmus.trainer.wire.collect import collect
from isthmus.trainer.wire.exchange import TYPES, Driving, Exchange, Link, LostPeer, Program, Result, all_gather, drive
from isthmus.trainer.wire.meter import Meter
from isthmus.trainer.wire.tell import NotDone, tell

_log = logging.getLogger("isthmus")


class Training:
    """One worker's training by IST or a rival, around a loop of one's own.

    ::

        training = isthmus.Training(network, example=(x,), optimizer=make_optimizer, local_steps=50)
        model, optimizer = training.module, training.optimizer
        for x, y in loader:                        # as it was
            loss = criterion(model(x), y)
            loss.backward(); optimizer.step(); optimizer.zero_grad()
        with training.whole() as merged: ...       # every worker enters
        training.export("model.safetensors")

    Every worker runs the same script, on its own data. The steps of the optimizer are counted; after ``local_steps`` of
    them the pieces are merged, and the next forward pass in training starts the next round. ``module`` and
    ``optimizer`` are the same objects for the whole run; the module's parameters change under them. A worker whose loop
    is shorter than the others' merges what it has and takes part in their rounds when it calls :meth:`whole`,
    :meth:`export` or :meth:`close`.

    Attributes:
        module: what this worker trains: under ``ist`` and ``narrow`` a piece of the network, with its parameter names.
        optimizer: over all its parameters.
        strategy: how.
        local_steps: steps between two merges.
        setup_bytes: (sent, received) by this worker before the first round.
        faults: what happens when a worker dies, freezes or does not come.
    """

    def __init__(
        self,
        network: nn.Module | Callable[[], Any] | Network,
        example: Any = None,
        optimizer: Callable[[nn.Module], Optimizer] | None = None,
        strategy: Strategy | str = "ist",
        law: Law | str | Mapping[str, Law | str] | None = None,
        core: float | None = None,
        local_steps: int = 50,
        seed: int = 0,
        *,
        cut: Sequence[str] | None = None,
        keep_state: bool = True,
        wire: str | None = None,
        overlap: bool = False,
        rounds: int | None = None,
        device: torch.device | str | None = None,
        init: str | Path | None = None,
        faults: Faults | None = None,
        prelude: Callable[[Link], Program[None]] | None = None,
    ) -> None:
        """Join the other workers, and open the first round.

        Args:
            network: a module, or a function that returns one; under ``ist`` and ``narrow`` nobody calls it for real, if
                what it does can be recorded without memory for its weights.
            example: an example call of the network: (args) or (args, kwargs), or a dictionary of named arguments; any
                nesting of tensors and constants.
            optimizer: returns an optimizer of a module's parameters, with groups or without.
            strategy: a name (`isthmus train --help` has all), or an object of ``isthmus.strategies``.
            law: how ist deals units to workers, a name or an object of ``isthmus.partitions``, or one for each kind of
                axis; by default ``auto``: what was measured best for networks of this structure.
            core: fraction of the units that all workers hold.
            local_steps: steps between two merges.
            seed: of the partitions, and of the weights that a function draws.
            cut: axes to cut instead of the default, as ``isthmus inspect`` shows them.
            keep_state: whether momentum and moments of a parameter stay with a worker from round to round while it
                holds the same entries of it, or start at zero every round. They never travel.
            wire: bf16 or fp16: floating-point numbers travel in this type, half the bytes of float32.
            overlap: whether what of a round's pieces nobody changes in the round before travels in that one, beside its
                steps: the same bits, sooner. It needs workers in processes of their own, and memory for what travels.
            rounds: how many there will be, if that is known: nothing is sent ahead for one more.
            device: where a network that a function makes is trained; by default a GPU where there is one a worker.
            init: safetensors files that hold the weights it starts from, read slice by slice: one, an index of several
                (JSON), or a folder with either; by default they are those that the function gives it.
            faults: what is to happen when a worker dies, freezes or does not come.
            prelude: what all workers tell each other before the first round; not entered by a worker that comes later.

        Raises:
            InvalidInput: a value that breaks its rule, or that is not the same on all workers.
        """
        self.strategy = strategy_of(strategy, law, core)
        self.local_steps = check_integer("local_steps", local_steps, at_least=1)
        self._seed = check_integer("seed", seed, at_least=0, at_most=2**64 - 1)
        if not callable(optimizer):
            raise InvalidInput(f"`optimizer` must be a function of the module that returns one, got {optimizer!r}")
        cut = self.strategy.check_cut(cut)
        self._keep_state = keep_state
        self.faults = Faults() if faults is None else faults
        self._link = link = join(self.faults.join_timeout)
        if self.strategy.processes and link.shared:
            raise InvalidInput(f"strategy {self.strategy.name!r} needs every worker in a process of its own")
        self.strategy.check_workers(self._link.workers)
        if not isinstance(network, Network):
            network = describe(network, example, self._seed, cut, device, init)
        self.strategy, self.law_reason = network.chosen(self.strategy)
        self._network = network
        self._meter, self._pace = Meter(), Pace()
        if isinstance(link, Elastic):
            link.begin_training()
            link.own.meter, link.deadline, link.stop = self._meter, self.faults.deadline, lambda why: self._stop.set()
        check_wire(wire, self._link.seats, self.strategy)
        check_overlap(overlap, self._link.seats, self.strategy)
        self._wire, self._overlap = wire, overlap
        copies = self.faults.copies and self._link.elastic
        kind = None if wire is None else TYPES[wire]
        self._worker = Worker(self._link, network, seed, kind, copies, overlap, rounds)
        self._closed, self._news = False, News()
        self._kept: tuple[str | Path, Any, int, bool] | None = None
        self._stop = threading.Event()
        self._weighed: set[tuple[int, int]] = set()
        self._members = Members(self._link, network.device, self.strategy.elastic, self._saved, self._noticed)
        self._members.least, self._members.patience = self.faults.least(link.seats), self.faults.join_timeout
        self._members.stopping = self._stop.is_set
        self._begin(prelude)
        self._rounds = Rounds(self._members, self._closed_round, lambda: self._pace.seconds)
        self._train()
        self._be("computing")
        self.module = self._members.part.called
        self.optimizer = adopt(self._members.part.module, optimizer)
        self._standing = Standing(self._settings(), self._rounds, self.optimizer, self._meter, [0, 0])
        self._view = View(self._worker, self._members, self._look)
        if any(True for _ in self.module.buffers()):
            self._view.recent = Recent(self.device, self.workers)
        self._watch()

    @property
    def seat(self) -> int:
        """The number this worker was started with; :attr:`worker` changes when others are lost."""
        return self._link.seat

    @property
    def stopping(self) -> bool:
        """Whether the run was told to stop: one's loop had better merge, save and leave.

        With torch's own strategies, whose workers must make the same number of steps, it is never so within a round:
        the next one raises Stopped on all.
        """
        return self._stop.is_set() and not self.strategy.processes

    @property
    def handed(self) -> Any:
        """What this worker was told by :meth:`hand_over` when it came; None if it was there from the start."""
        return self._members.handed

    def watch(self, publish: Callable[[Sequence[Heard]], None]) -> None:
        """Have a function called about once a second on worker 0, on a thread beside, with what is known of all."""
        if isinstance(self._link, Elastic):
            self._link.publish = publish

    def say(self, loss: float) -> None:
        """Say in this worker's heartbeats how it is doing.

        Args:
            loss: mean of its last round.
        """
        if isinstance(self._link, Elastic):
            self._link.own.loss = loss

    def hand_over(self, state: Callable[[], Any]) -> None:
        """Say what worker 0 is to tell a worker that comes later.

        Args:
            state: returns plain data.
        """
        self._members.hand = state

    @property
    def events(self) -> list[Event]:
        """Who was lost, who came, whose blocks were refused, and so on."""
        return self._news.events

    @property
    def worker(self) -> int:
        """The number of this worker, 0 .. workers - 1."""
        return self._link.index

    @property
    def workers(self) -> int:
        """Number of workers."""
        return self._link.workers

    @property
    def round(self) -> int:
        """Number of the round that is open, or else of the next: how many have been merged."""
        return self._rounds.state.number

    @property
    def capacities(self) -> tuple[float, ...] | None:
        """Relative speeds of all workers, by seat, as they were measured; None if they were not (yet)."""
        return self._rounds.state.capacities

    @property
    def steps(self) -> int:
        """Steps this worker has made."""
        return self._standing.steps

    @property
    def merged(self) -> bool:
        """Whether all steps this worker has made are in the merged network."""
        return self._rounds.made == 0

    @property
    def device(self) -> torch.device:
        """Where this worker computes."""
        return self._network.device

    def share(self, items: Any) -> Subset[Any]:
        """Return this worker's own share of a dataset, drawn by seed: disjoint from the others', of about their size.

        Args:
            items: with a length and items by number, the same on all workers.
        """
        order = generator(self._seed, "data/share").permutation(len(items))
        return Subset(items, sorted(order[self.worker :: self.workers].tolist()))

    def targets(self, targets: Any) -> Any:
        """Return what is right for :attr:`module`, from what is right for the whole network.

        Under ``class-cut`` the number of the unit that stands for each class; negative numbers stay, and a loss that
        ignores -100 (cross-entropy) passes over what does not count here. Under all other strategies targets as they
        are.

        Raises:
            InvalidInput: targets that the gate of ``class-cut`` cannot take.
        """
        return self._members.part.targets(targets)

    def batches(self, targets: Any, batch_size: int, own_share: float | None = None) -> Batches:
        """Return the batches of this worker's loop where the strategy says what they hold:
        ``DataLoader(data, batch_sampler=...)``.

        Under ``class-cut`` a share of every batch is drawn from all samples of the worker's own classes, the rest from
        :meth:`share` of all. The piece is told these shares, which the merged network needs. Under ``narrow`` with
        ``balanced`` all classes of :meth:`share` are as frequent. Under ``sharded-softmax`` they are the same on all.

        Args:
            targets: class numbers of all samples, the same on all workers: [m], or [m, ...] several a sample.
            batch_size: samples of a step.
            own_share: instead of the strategy's (``class-cut``).

        Raises:
            InvalidInput: a strategy to which any batches will do, or classes without samples.
        """
        check_integer("batch_size", batch_size, at_least=1)
        numbers = np.asarray(targets)
        rest = np.asarray(self.share(numbers).indices)
        length = max(1, len(numbers) // (self.workers * batch_size))
        if own_share is not None and not self.strategy.routed:
            raise InvalidInput(f"`own_share` has no effect with strategy {self.strategy.name!r}")
        if self.strategy.same_batches:
            return Batches(Common(len(numbers), batch_size, self._seed), max(1, len(numbers) // batch_size))
        if self.strategy.balances:
            return Batches(Balanced(numbers[rest], batch_size, self._seed, self.seat), length, rest)
        deal = self._members.part.deal
        if deal is None:
            raise InvalidInput(f"batches() has no effect with strategy {self.strategy.name!r}: use share()")
        assert isinstance(self.strategy, ClassCut)
        share = self.strategy.share if own_share is None else own_share
        chosen = routed(deal, self.seat, numbers, rest, batch_size, share, self._seed)
        self.route(chosen)
        return Batches(chosen, length)

    def route(self, chosen: Routed) -> None:
        """Tell the piece which samples it is trained on, in which shares."""
        self._members.part.route(self._members.state, chosen.prior, chosen.drawn)

    @property
    def deal(self) -> ClassDeal | None:
        """Who owns which classes, by seat, under ``class-cut``."""
        return self._members.part.deal

    def open(self) -> None:
        """Start the next round, if none is open; the first forward pass in training does it by itself.

        Raises:
            InvalidInput: training is closed.
            Stopped: the run was told to stop; if it has been saved before, it is saved again.
            WorkerError: too few workers are left; likewise.
        """
        self._check_not_shown("open()")
        if self._rounds.training:
            return
        if self._closed:
            raise InvalidInput("training is closed: what is trained after close() would be lost")
        before = self.capacities
        self._train()
        if self.worker == 0 and self.capacities != before:
            _log.warning("isthmus: capacities as measured: %s", " ".join(f"{each:g}" for each in self.capacities or ()))
        kept = self._keep_state or not self.strategy.restarts
        forget(self.module, self.optimizer, self._members.part.changed if kept else None)

    def merge(self) -> None:
        """Merge, before its time, what all workers have made; every worker enters.

        Raises:
            WorkerError: other workers have called something else.
        """
        self._together(Wish.SETTLE, _nothing_more)

    @contextmanager
    def whole(self, on: str = "all", factor: float = 1.0) -> Iterator[nn.Module | None]:
        """Yield the merged network to use, as the user's own class; every worker enters.

        Steps that are not merged yet are merged first. Weights are scaled, running statistics of norms are measured
        anew (see :meth:`recalibrate`), and the network is in evaluation mode. After the block it is as before.

        Under ``ist`` nobody holds the network: values are fetched from the workers that are home to them when torch
        takes them, and dropped after; large products are computed a block of rows at a time. So inside the block a
        parameter can be read and computed with, but not written to, it has no gradient, and workers that are done wait
        for the others; other calls of this training come after it.

        Args:
            on: ``all`` workers get it, or the ``root`` alone, which is worker 0 (the others: None).
            factor: multiplies the scales of weights whose sums no norm follows.

        Raises:
            InvalidInput: another value of ``on``, or inside another such block.
            WorkerError: other workers have called something else.
        """
        check_choice("on", on, ("all", "root"))
        everywhere = on == "all"
        self._together(Wish.SEE_EVERYWHERE if everywhere else Wish.SEE, self._settle)
        with self._being("looking"), self._view.show(self._rounds.state, everywhere, factor) as model:
            yield model

    def export(self, path: str | Path, metadata: Mapping[str, str] | None = None, factor: float = 1.0) -> Path:
        """Write the merged network to use, scales folded in, as one safetensors file; every worker enters.

        ``safetensors.torch.load_model`` reads it into the user's own class; written to ``FOLDER/model.safetensors``
        beside a ``config.json``, ``from_pretrained(FOLDER)`` of Hugging Face does. Worker 0 writes, a few rows at a
        time as they come; when the others return, the file is there, whole.

        Args:
            path: where, on worker 0's host.
            metadata: kept in the file.
            factor: as in :meth:`whole`.

        Raises:
            InvalidInput: a path that does not end in .safetensors, or in no folder.
            WorkerError: it could not be written.
        """
        target = check_path(path)
        self._together(Wish.EXPORT, self._settle)
        failure: Exception | None = None
        try:
            with self._being("looking"), self._view.show(self._rounds.state, False, factor) as model:
                if model is not None:
                    save(model, target, {**self._members.part.merged(self._rounds.state).metadata, **(metadata or {})})
        except (OSError, InvalidInput) as error:  # the others wait to hear of it
            failure = error
        told = self._act(lambda: self._tell([0.0 if failure is None else 1.0]))
        if isinstance(failure, InvalidInput):
            raise failure
        if told[0][0]:
            raise NotDone(f"worker 0 could not write {target}: {failure or 'see there'}") from failure
        return target

    def recalibrate(self, batches: Iterable[Any] | None) -> None:
        """Say on which batches :meth:`whole` and :meth:`export` measure the running statistics of norms from now on.

        Each worker measures on its own, and all count: the statistics are the mean over all workers' batches. By
        default these are the latest that it has trained on, about 4,000 samples over all workers.

        Args:
            batches: of this worker: inputs, (input, target) pairs, or dictionaries of arguments; None: the default
                again. Kept.
        """
        chosen = batches if batches is None or isinstance(batches, Sequence) else list(batches)
        if chosen is not None and not len(chosen):
            raise InvalidInput("`batches` must hold at least one batch, got none")
        self._view.batches = chosen

    def verify(self) -> Verdict | None:
        """Compare random cuts of the merged network with the masked whole, on the example; every worker enters.

        Where the example was made without values, random numbers stand for it, and zeros for whole numbers. Returns
        what ``coupling.verify`` says, on worker 0, which holds the whole network meanwhile, several times over; None on
        the others.

        Raises:
            InvalidInput: a strategy that cuts nothing, or a network that cannot be verified on such a call.
        """
        if not self.strategy.cuts:
            raise InvalidInput(f"strategy {self.strategy.name!r} cuts nothing: there is nothing to verify")
        with self.whole(on="root") as model:
            if model is None:
                return None
            example, device = self._network.example, self._network.device
            random = torch.Generator().manual_seed(self._seed)
            args, kwargs = example.call([_valued(tensor, random).to(device) for tensor in example.tensors])
            return self._network.valued.verify(copy.deepcopy(model), args, kwargs)

    @property
    def scale(self) -> float:
        """The mean factor on weights that no norm follows when the merged network is used."""
        return self._view.scale(self._rounds.state)

    def gather(self, *numbers: float) -> list[list[float]]:
        """Return every worker's numbers, by worker; of one that has ended, none. Merges nothing by itself."""
        own = [float(number) for number in numbers]
        found: list[list[float]] = self._together(Wish.GATHER, lambda: _plain(self._tell(own)))
        return found

    def tell(self, value: Any) -> Any:
        """Return what worker 0 says, as plain data; every worker enters."""
        told = self._act(lambda: tell(value if self.worker == 0 else None, self._link, self.device))
        return told[0]

    def collect(self, *tensors: Tensor) -> list[list[Tensor]]:
        """Return, on worker 0, every worker's tensors, by worker; elsewhere []. Merges nothing by itself."""
        program = partial(collect, tensors, self._link, self.device)
        found: list[list[Tensor]] = self._together(Wish.COLLECT, lambda: _plain(program()))
        return found

    def account(self) -> Account:
        """Return what the training has cost every worker so far; every worker enters. Merges nothing by itself."""
        return Account.of(self._together(Wish.ACCOUNT, lambda: _plain(self._tell(self._spent()))))

    def state_dict(self) -> dict[str, Any]:
        """Return where this worker stands, as plain data; the tensors are not copied.

        Each worker saves its own. With the user's own generator, loader and schedule put back too, training goes on to
        the same bits.
        """
        return self._standing.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned on this worker; every worker does so at the same place.

        Raises:
            InvalidInput: the state of another worker, or of a training with other settings.
        """
        self._standing.load_state_dict(state)

    def save(self, folder: str | Path, extra: Any = None, keep: int = 2, parents: bool = True) -> Path:
        """Write a checkpoint that :meth:`resume` goes on from; every worker enters. Return its own folder.

        Steps that are not merged yet are merged first. Every worker writes its share into ``FOLDER/checkpoint-ROUND``,
        which is there once all of it is on the disk. Beside the training it holds torch's generators of random numbers.

        Args:
            folder: of checkpoints, which all workers see; made if it is not there. Those of later rounds in it, of a
                course that was given up, are removed.
            extra: of this worker: numbers, text, tensors, lists and dictionaries of them, and objects that have
                ``state_dict`` (a schedule, a gradient scaler, a sampler).
            keep: how many checkpoints to leave there.
            parents: whether to make the folders above it too.

        Raises:
            InvalidInput: an ``extra`` that is something else, or a folder that is not the same on all workers.
            WorkerError: a worker could not write.
        """
        check_integer("keep", keep, at_least=1)
        self._kept = folder, extra, keep, parents
        self._together(Wish.SAVE, self._settle)
        return self._save([str(folder), keep, parents], extra)

    def resume(self, folder: str | Path) -> Any:
        """Go on from the last checkpoint in a folder that is sound; every worker enters. Return ``extra``.

        With as many workers as wrote it, and the user's own schedule, loader and so on put back, training goes on to
        the same bits. With another number of workers it goes on too: units, and what :meth:`share` gives, are dealt
        anew, and momentum and moments of pieces start at zero. What is damaged is named on the log ``isthmus``.

        Args:
            folder: of checkpoints, or of one.

        Raises:
            DataError: it holds no checkpoint that is sound.
            InvalidInput: one of a training with other settings.
        """
        self._together(Wish.RESUME, _nothing_more)
        found, wrong = self._drive(self._members.act(lambda: choosing(self._members, Path(folder))), Meter())
        for line in wrong if self.worker == 0 else ():
            _log.warning("isthmus: %s; going on from %s", line, found.path.name)
        extra = self._standing.resume(found)
        if self.worker == 0 and found.workers != self.workers:
            _log.warning("isthmus: %s", self._dealt_anew(found))
        return extra

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Leave gradients as they are in backward passes inside the block, to be averaged in the next one after it.

        For ``data-parallel``, ``ddp`` and ``fsdp`` with accumulated gradients: one exchange a step instead of one a
        backward pass. Other strategies average no gradients.
        """
        with self._members.part.accumulating():
            yield

    def close(self) -> None:
        """Merge what is left; take part in the others' rounds until all workers have ended. Closing again is nothing.

        The merged network can still be seen and exported after it.
        """
        if self._closed:
            return
        while not self._closed:
            try:
                self._attend(self._agree(Wish.END, self._end)[0])
            except RunOver:  # a worker died when all had agreed on the end, and those who heard of it are gone
                self._closed = True

    def __enter__(self) -> Training:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        native = self._members.part.native
        if isinstance(error, RuntimeError) and not isinstance(error, WorkerError) and native and native.broken:
            said = " ".join(str(error).split("Exception raised from")[0].split())
            raise LostPeer(f"worker {self.worker} lost the connection to another worker in a step: {said}") from error

    # What follows stands around the loop.

    def _watch(self) -> None:
        self.module.register_forward_pre_hook(self._before_forward, prepend=True, with_kwargs=True)
        self.optimizer.register_step_pre_hook(self._before_step)
        self.optimizer.register_step_post_hook(self._after_step)
        self._members.part.attach(lambda: Driving(self._rounds.average(), self._link, self._meter))

    def _before_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not (module.training and torch.is_grad_enabled()):
            return
        self._check_not_shown("a step")
        self.open()
        self._step_begins()
        if self._view.recent is not None and self._view.batches is None:
            self._view.recent.keep(args, kwargs)

    def _before_step(self, *_: Any) -> None:
        self._check_not_shown("a step")
        self._members.part.complete()
        self.open()
        self._step_begins()

    def _step_begins(self) -> None:
        if self._meter.step_begins() and isinstance(self._link, Elastic):
            self._link.own.step_begins()

    def _after_step(self, *_: Any) -> None:
        self._count_native()
        self._meter.step_ends()
        self._members.state.made += 1
        self._members.state.steps += 1
        if self._rounds.made >= self.local_steps:
            self._weigh()
            self._drive(self._rounds.merge())
            self._merged()

    def _begin(self, prelude: Callable[[Link], Program[None]] | None) -> None:
        """Have a state, with the others or as one that comes when they have begun."""
        members, link = self._members, self._link

        def fresh() -> tuple[Part, State]:
            part = part_of(self.strategy, self._worker)
            return part, part.come()

        members.fresh = fresh
        if isinstance(link, Elastic) and link.fresh:
            members.part, members.state = fresh()
            self._drive(members.come())
            self._news.restored = ""  # what was lost before it came is the others' to tell
        else:

            def body() -> Program[Done[None]]:
                if prelude is not None:
                    yield from prelude(link)
                yield from agree(self._terms(), link, self._network.device)
                part = part_of(self.strategy, self._worker)
                state = yield from part.start()

                def commit() -> None:
                    members.part, members.state = part, state

                return commit, None

            with passing(), suppress(CameBack):  # it was late, and has been handed what the others have begun
                self._drive(members.act(body))
        self.setup_bytes = (self._meter.sent, self._meter.received)

    def _train(self) -> None:
        """Come to be in an open round."""
        try:
            self._drive(self._rounds.train())
        except Stop as stop:
            self._save_again()
            raise Stopped("the run was told to stop") from stop
        except TooFew:
            self._save_again()
            raise
        self._opened = time.monotonic()

    def _save_again(self) -> None:
        """Save where the user has saved before."""
        if self._kept is not None:
            self.save(*self._kept)

    def _noticed(self, change: Change, number: int) -> None:
        """Say who is gone and who has come."""
        absent = self._members.part.absent if change.lost and self._members.acts else ()  # none, before the first act
        self._news.changed(change, number, absent, self.workers, aloud=self.worker == 0)

    def _closed_round(self, number: int, refused: Mapping[int, str]) -> None:
        """Say whose block was refused; this worker begins anew with the next round if it is its own."""
        self._news.refused(number, refused, aloud=self.worker == 0)
        if self.seat in refused:
            forget(self.module, self.optimizer, None)
        self._pace.mark(self._meter.stepping, self.steps)

    def _saved(self) -> Program[Rows]:
        """Return what reads rows that nobody has any more."""
        rows, where = yield from last_rows(self._members)
        self._news.restored = f"had rows that nobody has a copy of: they are now those of {where}"
        return rows

    def _drive(self, program: Program[Result], meter: Meter | None = None) -> Result:
        result = drive(program, self._link, self._meter if meter is None else meter)
        self._count_native()
        return result

    def _count_native(self) -> None:
        """Count what torch's own parts have moved."""
        native = self._members.part.native if hasattr(self._members, "part") else None
        if native is not None:
            self._meter.native(*native.taken())

    def _look(self, program: Program[Result]) -> Result:
        """Do what only serves to look at the network: its seconds and hops are not those of the training."""
        meter = Meter()
        try:
            return self._drive(program, meter)
        finally:
            self._meter.viewing += meter.viewing

    def _be(self, phase: str) -> None:
        """Have others hear what this worker does."""
        if isinstance(self._link, Elastic):
            self._link.own.phase = phase

    @contextmanager
    def _being(self, phase: str) -> Iterator[None]:
        """Have others hear what this worker does inside the block."""
        self._be(phase)
        try:
            yield
        finally:
            self._be("computing")

    def _merged(self) -> None:
        """Note how long a round was."""
        if isinstance(self._link, Elastic):
            own = self._link.own
            own.round, own.longest = self.round, max(own.longest, time.monotonic() - self._opened)

    def _act(self, program: Callable[[], Program[Result]], meter: Meter | None = None) -> Result:
        """Do something with all others, or again if a worker is lost meanwhile."""
        return self._drive(self._members.act(lambda: _plain(program())), meter)

    def _check_not_shown(self, call: str) -> None:
        if self._view.shown:
            raise InvalidInput(f"{call} comes after the block of whole(): inside it workers serve each other")

    def _together(self, wish: Wish, does: Callable[[], Program[Done[Any]]]) -> Any:
        """Do something when all want it."""
        return self._agree(wish, does)[1]

    def _agree(self, wish: Wish, does: Callable[[], Program[Done[Any]]]) -> tuple[Wish, Any]:
        self._check_not_shown(wish.call)
        self._weigh()
        program = self._rounds.together(wish, lambda agreed: does() if agreed == wish else self._join_in(agreed))
        return self._drive(program)

    def _settle(self) -> Program[Done[None]]:
        return (yield from self._members.part.settle(self._members.state, viewing=True)), None

    def _end(self) -> Program[Done[None]]:
        yield from ()

        def commit() -> None:
            self._members.state.round = None  # one that nobody has made a step in
            self._closed = True
            if isinstance(self._link, Elastic):
                self._link.end()

        return commit, None

    def _join_in(self, agreed: Wish) -> Program[Done[Any]]:
        """Take part, at one's end, in what the others do together."""
        if agreed == Wish.GATHER:
            return (yield from _plain(self._tell([])))
        if agreed == Wish.COLLECT:
            return (yield from _plain(collect([], self._link, self.device)))
        if agreed == Wish.ACCOUNT:
            return (yield from _plain(self._tell(self._spent())))
        if agreed == Wish.RESUME:
            raise InvalidInput("training is closed: resume() must be called by every worker before close()")
        return (yield from (_nothing_more() if agreed == Wish.SETTLE else self._settle()))

    def _attend(self, agreed: Wish) -> None:
        """Take part, at one's end, in what follows."""
        if agreed == Wish.SAVE:
            self._save(None, None)
        elif agreed in (Wish.SEE, Wish.SEE_EVERYWHERE, Wish.EXPORT):
            with self._view.show(self._rounds.state, agreed == Wish.SEE_EVERYWHERE, 1.0):
                pass
        if agreed == Wish.EXPORT:
            self._act(lambda: self._tell([0.0]))

    def _save(self, wanted: list[Any] | None, extra: Any) -> Path:
        """Take part in writing a checkpoint; one's own wishes, or at one's end the others'."""
        with self._being("saving"):
            body = partial(writing, self._members, self._standing, wanted, extra)
            return self._drive(self._members.act(body), Meter())

    def _dealt_anew(self, found: Checkpoint) -> str:
        moments = ", and momentum and moments start at zero" if self._members.part.store is not None else ""
        return (
            f"{found.path.name} was written by {found.workers} workers, now there are {self.workers}: units, shares of "
            f"the data and random numbers are dealt anew{moments}; the account starts anew too"
        )

    def _spent(self) -> list[float]:
        """This worker's account, in the order of its fields."""
        meter = self._meter
        spent = [meter.sent, meter.received, meter.compute, meter.move, meter.wait, *self._standing.most, self.steps]
        return [*spent, meter.viewing, meter.copying, meter.ahead, meter.hops, self._link.seat]

    def _tell(self, numbers: list[float]) -> Program[list[list[float]]]:
        """Tell all workers some numbers, as many as each likes."""
        own = torch.tensor(numbers, dtype=torch.float64, device=self._network.device)
        counts = yield from all_gather(own.new_tensor([len(numbers)]), self._link, counted=False)
        expected = tuple(int(count.item()) for count in counts)
        replies = yield Exchange((own,) * self.workers, expected, counted=False)
        return [reply.tolist() for reply in replies]

    def _weigh(self) -> None:
        """Note the most that was held at once."""
        if not hasattr(self, "optimizer"):
            return
        held = sum(local(parameter).numel() for parameter in self.module.parameters())
        if (held, len(self.optimizer.state)) in self._weighed:
            return
        self._weighed.add((held, len(self.optimizer.state)))
        state = self._rounds.state
        kept = [*state.tensors.values(), *state.reference.values(), *self._members.part.beside()]
        size = held_bytes(self.module, self.optimizer, kept)
        most = self._standing.most
        most[:] = [max(most[0], held), max(most[1], size)]

    def _terms(self) -> dict[str, str]:
        """What must be the same on all workers; last the strategy as a whole, with what a law has beside its record."""
        chosen = self.strategy.record()
        settings = ({"core": 0.0} if "law" in chosen else {}) | chosen | self._settings()
        plain = {name: value for name, value in settings.items() if name not in ("network", "init")}
        (whole,) = named({"": self.strategy}).values()
        terms = named(plain | {"strategy": self.strategy.name}) | self._network.terms
        return terms | {"`strategy` (as a whole)": whole}

    def _settings(self) -> dict[str, object]:
        """What a checkpoint was written with."""
        return {
            "strategy": self.strategy.identity,
            "local_steps": self.local_steps,
            "seed": self._seed,
            "cut": self._network.cut,
            "keep_state": self._keep_state,
            "wire": self._wire,
            "network": self._network.outline,
            "init": self._network.init,
        }


def _valued(tensor: Tensor, random: torch.Generator) -> Tensor:
    """Return a tensor of an example, with values where it has none.

    Zeros would hide what is wrong; whole numbers may be indices, of which zero is one.
    """
    if not tensor.is_meta:
        return tensor
    if tensor.is_floating_point():
        return torch.randn(tensor.shape, generator=random, dtype=torch.float64).to(tensor.dtype)
    return torch.zeros(tensor.shape, dtype=tensor.dtype)


def _plain(program: Program[Result]) -> Program[Done[Result]]:
    """Return what a program returns that changes nothing."""
    result = yield from program
    return _nothing, result


def _nothing_more() -> Program[Done[None]]:
    yield from ()
    return _nothing, None


def _nothing() -> None: ...
