"""How the workers of a run find each other: a store of short texts that all of them can reach, and a seat for each.

The store is that of the launcher that started the workers, isthmus' own or torchrun's; or of the process group that a
script has made; or, for workers that are started one by one, worker 0's. What must be trusted: whoever can reach the
port of the store can write to it, so it listens where MASTER_ADDR says and nowhere else.
"""

from __future__ import annotations

import atexit
import errno
import json
import logging
import os
import signal
import socket
import struct
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store, TCPStore

from isthmus import version
from isthmus.errors import InvalidInput, IsthmusError, WorkerError, everywhere
from isthmus.trainer.wire.alike import difference
from isthmus.trainer.wire.resolver import ask_again_soon

_LOOPBACK = ("127.", "localhost", "::1")  # how an address begins that no other host can reach
_POLL = 0.02  # seconds between two looks at the store
_SILENCE = 5.0  # seconds in which a store answers a greeting, however busy its host
_NAMING = 30.0  # seconds in which a store that answers is reached: nobody may answer torch's question for its name
_LINGER = 3.0  # seconds that worker 0 keeps the store for others that still have to leave
_LATE = 5.0  # seconds that it does so for those that still have to read why all of them end
_NOTE = 5.0  # seconds after which a worker says for whom it waits

_log = logging.getLogger("isthmus")


@dataclass(frozen=True, eq=False)
class Place:
    """Where this process sits among the workers of a run.

    Attributes:
        store: what all workers can read and write; one thread's at a time, others take ``store.clone()``.
        seat: the number this worker was started with, 0 .. seats - 1.
        seats: number of workers the run was started with.
        incarnation: how many times this seat's process was started again.
        hosted: whether this process keeps the store, so that it must leave last.
        by_hand: whether the workers were started one by one.
    """

    store: Store
    seat: int
    seats: int
    incarnation: int = 0
    hosted: bool = False
    by_hand: bool = False


_kept: list[Place] = []  # of this process, once found: its store lives as long as the process


def under_launcher() -> bool:
    """Whether torchrun, or what sets the same variables, started this process as one of its workers."""
    return {"RANK", "WORLD_SIZE"} <= set(os.environ)


def find_place(join_timeout: float = 60.0) -> Place | None:
    """Return this process's place among the workers, None in a run with one worker.

    In this order: the process group that a script has made; the store of the launcher, isthmus' own or torchrun's; a
    store that worker 0 keeps at MASTER_ADDR and MASTER_PORT, on that interface only. Asked again, it is the same.

    Args:
        join_timeout: seconds to wait for the store.

    Raises:
        InvalidInput: variables that are missing, no numbers or out of range; a port that another program has; a name
            that is no host; a seat that another process has; several tasks of Slurm without variables.
        WorkerError: nobody keeps a store there.
    """
    if _kept:
        return _kept[0]
    if dist.is_available() and dist.is_initialized():
        return _of_group()
    if not under_launcher():
        _check_slurm()
        return None
    seats = _number("WORLD_SIZE", 1, None)
    seat = _number("RANK", 0, seats - 1)
    if seats == 1:
        return None
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise InvalidInput(f"RANK and WORLD_SIZE are set but {missing[0]} is not: the workers cannot find each other")
    address, port = os.environ["MASTER_ADDR"], _number("MASTER_PORT", 1, 65535)
    deadline = time.monotonic() + join_timeout
    ask_again_soon()
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        place = _of_launcher(address, port, seat, seats, join_timeout, deadline)
    else:
        place = _by_hand(address, port, seat, seats, join_timeout, deadline)
    if address.startswith(_LOOPBACK) or os.environ.get("LOCAL_WORLD_SIZE") == str(seats):
        use_loopback_interface()
    elif place.by_hand:
        _use_interface_towards(address, port)
    _kept.append(place)
    _end_in_one_line()
    if place.by_hand:
        atexit.register(leave, place)
    return place


def check_in(place: Place, join_timeout: float = 60.0) -> None:
    """Wait until all workers have come, and hold what they say of the run's size against each other.

    A worker that comes when the others have begun waits for nobody.

    Raises:
        InvalidInput: workers that were told different numbers of workers, or the same seat; on every worker.
        WorkerError: some have not come in time; names all of them, on every worker.
    """
    store = place.store
    try:
        if store.check(["begun"]):
            _check_begun(place)
            return
        number = store.add("came", 1)
        store.set(f"came/{number}", json.dumps({"seat": place.seat, "terms": _terms(place)}))
        _wait_for_all(place, join_timeout)
    except dist.DistError as error:
        raise _gone(place) from error


def leave(place: Place, seconds: float = _LINGER) -> None:
    """Leave the run; the worker that keeps the store waits for those that have come and not left, but not for long."""
    try:
        place.store.add(f"left/{place.seat}", 1)
        if place.hosted:
            others = [f"left/{seat}" for seat in _came(place) if seat != place.seat]
            _until(lambda: not others or place.store.check(others), seconds)
    except dist.DistError:
        return  # whoever kept it is gone already


def together(place: Place, name: str, seconds: float = _LINGER) -> None:
    """Wait, but not for long, until all workers that came are here; then none needs the store for it any more."""
    try:
        awaited = len(_came(place))
        place.store.add(f"{name}/here", 1)
        _until(lambda: place.store.add(f"{name}/here", 0) >= awaited, seconds)
        place.store.add(f"{name}/seen", 1)
        if place.hosted:
            _until(lambda: place.store.add(f"{name}/seen", 0) >= awaited, seconds)
    except dist.DistError:
        return


def shared(error: IsthmusError, wait: float = 0.0) -> IsthmusError:
    """Return what every worker of this run is to raise, now that one of them does: what the first of them found.

    Args:
        error: of this worker.
        wait: seconds in which another worker may say why it is gone, where this one has only lost it.
    """
    place = _kept[0] if _kept else None
    if place is None or error.everywhere:
        return error
    try:
        if not wait and isinstance(error, InvalidInput):
            prefix = "" if str(error).startswith(("worker", "`worker")) else f"worker {place.seat}: "
            _tell_all(place.store, error, prefix)
        _until(lambda: place.store.check(["fault"]), wait)
        heed(place.store)
    except dist.DistError:
        return error
    except IsthmusError as said:
        return said
    return error


def heed(store: Store) -> None:
    """Raise what another worker has found wrong with how the run was started, if one has."""
    if store.check(["fault"]):
        said = json.loads(store.get("fault"))
        raise everywhere((InvalidInput if said["invalid"] else WorkerError)(said["text"]))


def last_words(error: IsthmusError) -> None:
    """Say in one line why this process is about to end; of an error that all workers raise, worker 0 says it.

    Where a launcher ends the others as soon as one has ended, all wait for each other first, and then take no notice of
    it: each ends by itself, with its own exit code. Workers that were started one by one have a terminal each.
    """
    place = _kept[0] if _kept else None
    if place is not None and error.everywhere:
        together(place, "end")
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _report(error)
    if place is None or not error.everywhere or place.by_hand or place.seat == 0:
        # torch keeps what is written to sys.stderr while an exception is reported
        print(f"isthmus: {error}", file=sys.__stderr__ or sys.stderr, flush=True)


def _report(error: IsthmusError) -> None:
    """Tell torchrun, in whose last lines it then stands, without the traceback that its own way to do so adds."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file:
        more = {"py_callstack": f"isthmus: {error}", "timestamp": str(int(time.time()))}
        said = {"message": {"message": f"{type(error).__name__}: {error}", "extraInfo": more}}
        with suppress(OSError), open(file, "w", encoding="utf-8") as opened:
            json.dump(said, opened)


def _end_in_one_line() -> None:
    """Let an error that all workers raise end a script in one line, and with 2 (1: a worker failed), as it does the
    command line."""
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not isinstance(error, IsthmusError) or not error.everywhere:
            before(kind, error, trace)
            return
        last_words(error)
        raise SystemExit(1 if isinstance(error, WorkerError) else 2)

    sys.excepthook = hook


def use_loopback_interface() -> None:
    """Let gloo listen on the loopback interface only, unless the user named another."""
    names = {name for _, name in socket.if_nameindex()}
    loopback = next((name for name in ("lo", "lo0") if name in names), None)
    if loopback:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)


# Three kinds of store.


def _of_group() -> Place:
    from torch.distributed.distributed_c10d import _get_default_store

    return Place(PrefixStore("isthmus", _get_default_store()), dist.get_rank(), dist.get_world_size(), _restarts())


def _of_launcher(address: str, port: int, seat: int, seats: int, join_timeout: float, deadline: float) -> Place:
    host = _reach(address, port, deadline, lambda: WorkerError(f"the launcher's store at {address}:{port} is gone"))
    prefix = "isthmus"
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun starts all workers again, and its store outlives them
        prefix += f"/{_restarts()}"
    return Place(PrefixStore(prefix, _client(host, port, join_timeout)), seat, seats, _restarts())


def _by_hand(address: str, port: int, seat: int, seats: int, join_timeout: float, deadline: float) -> Place:
    if seat == 0:
        store = PrefixStore("isthmus", _hosted(address, port, join_timeout))
    else:

        def absent() -> WorkerError:
            return WorkerError(
                f"worker 0 has not come within {join_timeout:g} s, nobody listens at {address}:{port}: start it "
                f"with {_variables(0, seats)}, or wait longer with --join-timeout"
            )

        host = _reach(address, port, deadline, absent)
        try:
            store = PrefixStore("isthmus", _client(host, port, join_timeout))
        except dist.DistError as error:
            raise absent() from error
    try:
        incarnation = _claim(store, seat, deadline)
    except dist.DistError as error:
        raise WorkerError("worker 0, which keeps the store, is gone") from error
    return Place(store, seat, seats, incarnation, hosted=seat == 0, by_hand=True)


def _client(host: str, port: int, join_timeout: float) -> TCPStore:
    store = TCPStore(host, port, None, False, timedelta(seconds=_NAMING), wait_for_workers=False)
    store.set_timeout(timedelta(seconds=join_timeout))
    return store


def _hosted(address: str, port: int, join_timeout: float) -> TCPStore:
    """Keep the store, on the interface of an address; one it bound itself would be open to every network."""
    try:
        family, host = _own_address(address, port)
    except socket.gaierror as error:
        raise _unknown(address, error) from error
    except OSError as error:
        raise InvalidInput(f"worker 0 cannot listen at {address}:{port}: {error.strerror}") from error
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE and _greeted(host, port):
            raise InvalidInput(
                f"`MASTER_PORT` {port} at {address} is another run's, or RANK=0 was given twice: take another port, "
                "or give every worker a RANK of its own"
            ) from error
        if error.errno == errno.EADDRINUSE:
            raise _taken(address, port) from error
        raise InvalidInput(f"worker 0 cannot listen at {address}:{port}: {error.strerror}") from error
    return TCPStore(
        host,
        port,
        None,
        True,
        timedelta(seconds=join_timeout),
        wait_for_workers=False,
        master_listen_fd=listener.detach(),
    )


def _own_address(address: str, port: int) -> tuple[int, str]:
    """Return the family and the number of an address of this host; of one that is not, where the way there begins."""
    found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
    family, *_, target = min(found, key=lambda one: one[0] != socket.AF_INET)
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        with suppress(OSError):
            probe.bind((target[0], 0))
            return family, str(target[0])
        probe.connect(target)  # nothing is sent
        return family, str(probe.getsockname()[0])


def _reach(address: str, port: int, deadline: float, absent: Callable[[], WorkerError]) -> str:
    """Wait until a store answers at an address; return the number that does.

    Torch's own client asks without end where another program listens, and logs pages where nobody does.
    """
    unknown: socket.gaierror | None = None
    while True:
        try:
            found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
            hosts, unknown = list(dict.fromkeys(str(each[4][0]) for each in found)), None
        except socket.gaierror as error:  # where names come with the workers, as in Kubernetes, it may come yet
            hosts, unknown = [], error
        for host in hosts:
            greeted = _greeted(host, port)
            if greeted:
                return host
            if greeted is False:
                raise _taken(address, port)
        if time.monotonic() > deadline:
            raise _unknown(address, unknown) if unknown else absent()
        time.sleep(10 * _POLL)


def _greeted(host: str, port: int) -> bool | None:
    """Return whether a torch store answers there; None where nobody listens.

    The greeting is that of c10d's TCPStore client: VALIDATE with its magic number, then PING with a number that comes
    back (torch/csrc/distributed/c10d/TCPStoreBackend.hpp).
    """
    number = os.getpid() & 0xFFFFFFFF
    try:
        connection = socket.create_connection((host, port), _SILENCE)
    except OSError:
        return None
    with connection:
        try:
            connection.sendall(struct.pack("<BIBI", 0, 0x3C85F7CE, 13, number))
            said = b""
            while len(said) < 4 and (more := connection.recv(4 - len(said))):
                said += more
        except OSError:
            return False
    return said == struct.pack("<I", number)


# Who has come.


def _claim(store: Store, seat: int, deadline: float) -> int:
    """Take a seat of workers that are started one by one; return how many times it was taken before.

    It is free, or its last process is known to be out: until the run has begun there is no such thing.
    """
    incarnation, own = 0, json.dumps({"who": _who(), "id": _id()})
    while True:
        while store.check([f"out/{seat}/{incarnation}"]):
            incarnation += 1
        holder = json.loads(store.compare_set(f"seat/{seat}/{incarnation}", "", own))
        if holder["id"] == _id():
            return incarnation
        if not store.check(["begun"]) or time.monotonic() > deadline:
            line = f"RANK={seat} was given twice, to {holder['who']} and to {_who()}: give every worker one of its own"
            if not store.check(["begun"]):
                _tell_all(store, InvalidInput(line))
            raise InvalidInput(line)
        time.sleep(_POLL)


def _wait_for_all(place: Place, join_timeout: float) -> None:
    store, begun, noted = place.store, time.monotonic(), False
    came: dict[int, dict[str, Any]] = {}
    while True:
        if store.check(["fault"]):
            _end(place, None)
        for number in range(len(came) + 1, store.add("came", 0) + 1):
            if not store.check([f"came/{number}"]):  # about to be written
                break
            came[number] = json.loads(store.get(f"came/{number}"))
        line = difference({each["seat"]: each["terms"] for each in came.values()})
        if line is not None:
            _end(place, InvalidInput(line))
        missing = sorted(set(range(place.seats)) - {each["seat"] for each in came.values()})
        if not missing:
            store.set("begun", json.dumps({"seat": place.seat, "terms": _terms(place)}))
            return
        waited = time.monotonic() - begun
        if waited > join_timeout:
            _end(place, WorkerError(_absent(place, missing, join_timeout)))
        if waited > _NOTE and not noted:
            noted = True
            if place.by_hand or place.seat == min(each["seat"] for each in came.values()):
                _log.warning("isthmus: waiting for %s", _workers(missing))
        time.sleep(_POLL)


def _came(place: Place) -> set[int]:
    """Return the seats of the workers that have come."""
    keys = [f"came/{number}" for number in range(1, place.store.add("came", 0) + 1)]
    return {json.loads(place.store.get(key))["seat"] for key in keys if place.store.check([key])}


def _terms(place: Place) -> dict[str, str]:
    """Return what must be alike before workers can even talk to each other."""
    return {
        "`WORLD_SIZE`": str(place.seats),
        "the version of isthmus": version.__version__,
        "the version of torch": torch.__version__.partition("+")[0],
        "the version of numpy": np.__version__,
        "the version of Python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "the order of bytes": sys.byteorder,
    }


def _check_begun(place: Place) -> None:
    other = json.loads(place.store.get("begun"))
    line = difference({place.seat: _terms(place)} | {other["seat"]: other["terms"]})
    if line is not None:
        raise InvalidInput(line)


def _end(place: Place, error: IsthmusError | None) -> NoReturn:
    """Raise on every worker what one of them has found first."""
    store = place.store
    if error is not None:
        _tell_all(store, error)
    try:
        heed(store)
    finally:
        store.add("fault/seen", 1)
        if place.hosted:  # for those that are still to come, too, unless nobody is
            awaited = store.add("came", 0) if isinstance(error, WorkerError) else place.seats
            _until(lambda: store.add("fault/seen", 0) >= awaited, _LATE)
    raise AssertionError("somebody has found a fault")


def _tell_all(store: Store, error: IsthmusError, prefix: str = "") -> None:
    said = {"text": f"{prefix}{error}", "invalid": not isinstance(error, WorkerError)}
    store.compare_set("fault", "", json.dumps(said))


def _absent(place: Place, missing: list[int], join_timeout: float) -> str:
    have = "has" if len(missing) == 1 else "have"
    line = f"{_workers(missing)} {have} not come within {join_timeout:g} s: "
    if place.by_hand:
        each = "it" if len(missing) == 1 else "them"
        line += f"start {each} with {_variables(','.join(map(str, missing)), place.seats)}, or "
    return line + "wait longer with --join-timeout"


def _variables(rank: object, seats: int) -> str:
    return (
        f"RANK={rank} WORLD_SIZE={seats} MASTER_ADDR={os.environ['MASTER_ADDR']} "
        f"MASTER_PORT={os.environ['MASTER_PORT']}"
    )


def _workers(seats: list[int]) -> str:
    """Name some workers.

    >>> _workers([3]), _workers([0, 2, 3])
    ('worker 3', 'workers 0, 2 and 3')
    """
    *most, last = map(str, seats)
    return f"workers {', '.join(most)} and {last}" if most else f"worker {last}"


def _until(true: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


def _gone(place: Place) -> WorkerError:
    who = "worker 0, which keeps the store," if place.by_hand else "the launcher, which keeps the store,"
    return WorkerError(f"{who} is gone")


# What the surroundings say.


def _number(name: str, least: int, most: int | None) -> int:
    said = os.environ[name]
    if not said.strip().isdecimal() or int(said) < least or (most is not None and int(said) > most):
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise InvalidInput(f"`{name}` must be a whole number {bounds}, got {said!r}")
    return int(said)


def _restarts() -> int:
    return _number("TORCHELASTIC_RESTART_COUNT", 0, None) if "TORCHELASTIC_RESTART_COUNT" in os.environ else 0


def _check_slurm() -> None:
    tasks = os.environ.get("SLURM_NTASKS", "1")
    if "SLURM_PROCID" in os.environ and tasks != "1":
        raise InvalidInput(
            f"Slurm started {tasks} tasks but RANK and WORLD_SIZE are not set: start one torchrun a node, or "
            "export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS MASTER_ADDR and MASTER_PORT"
        )


def _unknown(address: str, error: socket.gaierror) -> InvalidInput:
    return InvalidInput(f"`MASTER_ADDR` must be the address of worker 0's host, got {address!r}: {error.strerror}")


def _taken(address: str, port: int) -> InvalidInput:
    return InvalidInput(f"`MASTER_PORT` {port} at {address} is in use by another program: take another port")


def _who() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


@cache
def _id() -> str:
    return uuid.uuid4().hex


def _use_interface_towards(address: str, port: int) -> None:
    """Let gloo and nccl listen on the interface that leads to an address only, unless the user named another."""
    if sys.platform != "linux":
        return
    import fcntl

    try:
        family, own = _own_address(address, port)
    except OSError:
        return
    if family != socket.AF_INET:
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                said = fcntl.ioctl(asking.fileno(), 0x8915, struct.pack("256s", name.encode()[:15]))  # SIOCGIFADDR
            except OSError:  # it has no address
                continue
            if socket.inet_ntoa(said[20:24]) == own:
                os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
                os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
                return
