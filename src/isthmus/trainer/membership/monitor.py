"""Who is silent: a thread beside each worker that says it lives, and hears whether the others do.

Silence is measured by this process's own clock, from the moment a beat was last seen to change: what clocks elsewhere
show, or a clock that is set back, has no part in it. Nor has the time in which this process itself stood still (stopped
by a signal, a suspended machine, a store that did not answer): a worker that wakes up does not find all others dead.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from isthmus.errors import check_number
from isthmus.trainer.membership.beat import Beat
from isthmus.trainer.membership.beside import beside

if TYPE_CHECKING:
    from torch.distributed import Store

INTERVAL = 1.0  # seconds between the beats of a worker
SAY_AFTER = 3.0  # seconds of waiting before it is said for whom
SILENT = 10.0  # seconds without a beat after which a worker may be declared lost, where the deadline is not shorter
_LOOKS = 10  # times in an interval that a worker's end is looked for
_LATELY = 3  # intervals: who was heard from within them lives
_LONGEST_PAUSE = 300.0  # seconds, between two lines that say the same
_log = logging.getLogger("isthmus")


def _warn(why: str) -> None:
    _log.warning("isthmus: nobody watches over the other workers any more: %s", why)


@dataclass(frozen=True)
class Patience:
    """How long a monitor waits for what.

    Attributes:
        interval: seconds between beats; ends of processes are seen within a tenth of it.
        say_after: seconds of waiting before it is said for whom.
        silent: seconds without a beat after which a worker may be declared lost, where the deadline is not shorter.

    Raises:
        InvalidInput: a value that is not above 0.
    """

    interval: float = INTERVAL
    say_after: float = SAY_AFTER
    silent: float = SILENT

    def __post_init__(self) -> None:
        for name in ("interval", "say_after", "silent"):
            check_number(name, getattr(self, name), above=0)


@dataclass(frozen=True)
class Heard:
    """What is known of a worker.

    Attributes:
        seat: its number.
        member: whether it takes part.
        beat: its last one; None if there has been none.
        silence: seconds since it was last heard from, or first expected.
    """

    seat: int
    member: bool
    beat: Beat | None
    silence: float

    @property
    def round(self) -> int:
        """Rounds it has merged."""
        return 0 if self.beat is None else self.beat.round

    @property
    def heard(self) -> str:
        """Return when it was last heard from, in words."""
        if self.beat is None:
            return f"not heard from in {self.silence:.0f} s"
        return f"last heard from {self.silence:.0f} s ago, round {self.round}"


class Monitor:
    """One worker's thread of heartbeats.

    All callables are called on that thread; none may wait for others. What one of them raises ends the thread, as a
    broken store does, with one call of ``broken``; only a view that fails (``publish``) ends alone.

    Args:
        store: of the run; the thread uses a clone of it.
        seat: of this worker.
        status: returns this worker's beat as it is now; its number is set here.
        members: returns the seats that take part, the root's first.
        incarnations: returns the incarnation of each seat that takes part; 0 where a seat is missing.
        waiting: returns the seconds that this worker has been in its present exchange, None outside of one.
        deadline: returns the seconds of waiting after which others may be declared lost.
        lose: called with (seat, why) of a member that is to be declared lost: at once if its process has ended or
            others have declared it lost (this worker itself may be the one), as "silent for 12 s" after the deadline
            where it is silent (soon, where the run is to stop), as "late: ..." after the deadline where it lives and
            nobody is silent ("has left" if it has said that it ends). Called again about once an interval for as long
            as that is so and it is a member.
        uneven: called with the seat of a member that waits in a step which this worker, that has ended its loop and
            waits elsewhere, has not begun.
        log: called with lines for people, on the root only, or where that is silent on the next of the members.
        publish: called about once an interval with what is known of all workers, on the same one.
        stop: called once with the reason when the run is to stop.
        broken: called once with the reason if the thread ends because of an error; by default it is logged.
        patience: how long it waits for what.
    """

    def __init__(
        self,
        store: Store,
        seat: int,
        *,
        status: Callable[[], Beat],
        members: Callable[[], Sequence[int]],
        incarnations: Callable[[], Mapping[int, int]],
        waiting: Callable[[], float | None],
        deadline: Callable[[], float],
        lose: Callable[[int, str], None],
        uneven: Callable[[int], None] = lambda seat: None,
        log: Callable[[str], None] = lambda line: None,
        publish: Callable[[Sequence[Heard]], None] | None = None,
        stop: Callable[[str], None] = lambda why: None,
        broken: Callable[[str], None] = _warn,
        patience: Patience = Patience(),
    ) -> None:
        self.seat, self.patience = seat, patience
        self._status, self._members, self._incarnations = status, members, incarnations
        self._waiting, self._deadline = waiting, deadline
        self._lose, self._log, self._publish, self._stop, self._broken = lose, log, publish, stop, broken
        self._uneven = uneven
        self._store: Store = store.clone()  # type: ignore[attr-defined]  # torch's stubs do not know it
        self._ears = _Ears(self._store, seat)
        self._ends = _Ends(self._store)
        self._speech = _Speech(3 * patience.say_after)
        self._clock = _Clock(patience.interval)
        self._wait = _Wait()
        self._declared: dict[int, float] = {}  # seat -> when it is to be declared lost again
        self._posted, self._post_due, self._hear_due = "", 0.0, 0.0
        self._number = 0
        self._stopped = False
        self._leave = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; the thread ends with ``stop``, or with the process."""
        self._thread = beside(self._run, f"monitor of worker {self.seat}")
        atexit.register(self.stop)  # a thread that wakes up in torch while Python shuts down would abort the process

    def stop(self) -> None:
        """Say that this worker has ended, and end the thread; a store that does not answer is left after a second."""
        self._leave.set()
        atexit.unregister(self.stop)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(max(1.0, self.patience.interval))

    def _run(self) -> None:
        try:
            while not self._leave.wait(self.patience.interval / _LOOKS):
                self._look(self._clock.tick())
            self._post(replace(self._status(), phase="ended"))
        except Exception as error:  # whatever it is: a worker does not end because nobody watches the others
            with contextlib.suppress(Exception):
                if not self._leave.is_set():
                    self._broken(f"{type(error).__name__}: {' '.join(str(error).split())}")

    def _look(self, now: float) -> None:
        """Make one pass: beat, hear the ends of processes, hear the others' beats, judge."""
        members, incarnations = self._members(), self._incarnations()
        waited = self._wait.seconds(self._waiting(), now)
        own = self._own(waited is not None)
        self._beat(own, now)
        overdue = waited is not None and waited > (self._lately if self._stopped else self._deadline())
        hear = overdue or now >= self._hear_due
        for seat, why in self._ends.told({seat: incarnations.get(seat, 0) for seat in members}, thorough=hear):
            self._lose(seat, why)
        if hear:
            self._hear_due = now + self.patience.interval
            self._hear(own, members, waited, now)
        if overdue:
            assert waited is not None
            self._declare(own, members, waited, now)
        elif waited is None:
            self._declared.clear()

    @property
    def _lately(self) -> float:
        return _LATELY * self.patience.interval

    @property
    def _lag(self) -> float:
        """Seconds after which a beat is heard at the latest: one that fell silent since may have been so for longer."""
        return (1 + 1 / _LOOKS) * self.patience.interval

    def _own(self, waiting: bool) -> Beat:
        """Return this worker's beat; one that waits for others says so, whatever it is about to do."""
        own = self._status()
        return replace(own, phase="waiting") if waiting and not own.arrived else own

    def _beat(self, own: Beat, now: float) -> None:
        """Say that this worker lives: once an interval, and sooner where its phase has changed."""
        early = 0.75 * self.patience.interval if own.phase != self._posted else 0.0
        if now >= self._post_due - early:
            self._post(own)
            self._post_due = now + self.patience.interval

    def _post(self, beat: Beat) -> None:
        self._number += 1
        self._posted = beat.phase
        self._store.set(f"beat/{self.seat}", replace(beat, number=self._number).to_text())

    def _hear(self, own: Beat, members: Sequence[int], waited: float | None, now: float) -> None:
        """Listen to the others; on the worker with the lowest seat, say what there is to say."""
        self._ears.listen(members, now)
        if not self._stopped and self._store.check(["stop"]):
            self._stopped = True
            self._stop(self._store.get("stop").decode(errors="replace"))
        known = self._ears.known(own, members, now)
        for each in self._others(known) if own.phase == "waiting" else ():
            if each.beat is not None and each.beat.uneven(own):
                self._uneven(each.seat)
        if not self._speaks(members, known):
            return
        self._show(known)
        if waited is not None and waited > self.patience.say_after:
            self._say_whom(self._others(known), now)

    def _show(self, known: Sequence[Heard]) -> None:
        if self._publish is not None:
            try:
                self._publish(known)
            except Exception as error:  # a view is not worth a run
                self._publish = None
                _log.warning("isthmus: no live view any more (%s: %s)", type(error).__name__, error)

    def _say_whom(self, others: Sequence[Heard], now: float) -> None:
        """Name the silent workers that this one waits for, or else those that have not come."""
        silent = [each for each in others if each.silence > self.patience.say_after]
        named = silent or [each for each in others if each.beat is not None and not each.beat.arrived]
        if named and self._speech.is_due((bool(silent), *(each.seat for each in named)), now):
            for each in named:
                self._log(f"waiting for worker {each.seat} ({_why(each, bool(silent))})")

    def _declare(self, own: Beat, members: Sequence[int], waited: float, now: float) -> None:
        """Declare the silent ones lost; where all live, those late that have not come."""
        known = self._ears.known(own, members, now)
        others = self._others(known)
        lately, deadline = self._lately, self._deadline()
        # A run that is to end does not wait long for the dead; the living may have a round to finish.
        limit = lately if self._stopped else max(lately, min(deadline - self._lag, self.patience.silent))
        blamed = {each.seat: f"silent for {each.silence:.0f} s" for each in others if each.silence >= limit}
        if not blamed and waited > deadline and all(each.silence < lately for each in others):
            blamed = {each.seat: _blame(each.beat, waited) for each in others if each.beat and each.beat.awaited(own)}
        for seat, why in blamed.items():
            if now >= self._declared.get(seat, now):
                self._declared[seat] = now + self.patience.interval
                self._lose(seat, why)
        arrived = all(each.silence < lately and each.beat is not None and each.beat.arrived for each in others)
        stuck = arrived and waited > deadline
        if stuck and self._speaks(members, known) and self._speech.is_due("stuck", now):
            self._log(f"all workers live and have waited for each other for {waited:.0f} s: is a network cut?")

    def _speaks(self, members: Sequence[int], known: Sequence[Heard]) -> bool:
        """Whether this is the worker that speaks for all: the first of the members that is not silent."""
        silent = {each.seat for each in known if each.silence > self.patience.say_after}
        return next((seat for seat in members if seat not in silent), None) == self.seat

    def _others(self, known: Sequence[Heard]) -> list[Heard]:
        return [each for each in known if each.member and each.seat != self.seat]


class _Clock:
    """Seconds in which this process was awake: a tick counts at most an interval."""

    def __init__(self, most: float) -> None:
        self._most, self._awake, self._last = most, 0.0, time.monotonic()

    def tick(self) -> float:
        now = time.monotonic()
        self._awake += min(now - self._last, self._most)
        self._last = now
        return self._awake


class _Wait:
    """How long the present exchange has lasted, without the time in which this process stood still."""

    def __init__(self) -> None:
        self._said: float | None = None
        self._since = 0.0

    def seconds(self, said: float | None, now: float) -> float | None:
        if said is None or self._said is None or said < self._said:  # another exchange than at the last pass
            self._since = now
        self._said = said
        return None if said is None else min(said, now - self._since)


class _Ends:
    """What the store says of processes that have ended, or were declared lost."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys = -1

    def told(self, incarnations: Mapping[int, int], thorough: bool) -> list[tuple[int, str]]:
        """Return (seat, why) of those that are out; looks for each only if the store has changed, or thoroughly."""
        keys, before = self._store.num_keys(), self._keys  # one question, however many workers
        self._keys = keys
        if keys == before and not thorough:
            return []
        outs = [(seat, f"out/{seat}/{incarnation}") for seat, incarnation in incarnations.items()]
        return [(seat, self._store.get(key).decode(errors="replace")) for seat, key in outs if self._store.check([key])]


@dataclass
class _Ears:
    """The others' beats, and when each was last seen to change."""

    store: Store
    seat: int
    beats: dict[int, Beat] = field(default_factory=dict)
    since: dict[int, float] = field(default_factory=dict)

    def listen(self, members: Sequence[int], now: float) -> None:
        """Read the beats of all that take part, or have."""
        expected = sorted({*members, *self.beats} - {self.seat})
        self.since = {seat: self.since.get(seat, now) for seat in expected}
        there = [seat for seat in expected if seat in self.beats or self.store.check([f"beat/{seat}"])]
        texts = self.store.multi_get([f"beat/{seat}" for seat in there]) if there else []
        for seat, text in zip(there, texts, strict=True):
            beat = Beat.of_text(text)
            if beat is not None and beat != self.beats.get(seat):
                self.beats[seat], self.since[seat] = beat, now

    def known(self, own: Beat, members: Sequence[int], now: float) -> list[Heard]:
        """Return what is known of every worker, this one too."""
        others = [Heard(seat, seat in members, self.beats.get(seat), now - begun) for seat, begun in self.since.items()]
        return sorted([Heard(self.seat, self.seat in members, own, 0.0), *others], key=lambda each: each.seat)


class _Speech:
    """What has been said, so that the same is said again only after ever longer pauses."""

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._due: dict[object, tuple[float, float]] = {}

    def is_due(self, about: object, now: float) -> bool:
        """Whether this is to be said now; then it is taken to be said."""
        due, pause = self._due.get(about, (now, self._pause))
        if now >= due:
            self._due[about] = (now + pause, min(2 * pause, _LONGEST_PAUSE))
        return now >= due


def _blame(beat: Beat, waited: float) -> str:
    if beat.phase == "ended":
        return "has left"
    return f"late: {beat.phase} in round {beat.round} while others have waited {waited:.0f} s"


def _why(worker: Heard, silent: bool) -> str:
    if silent or worker.beat is None:
        return worker.heard
    return f"{worker.beat.phase}, round {worker.round}"
