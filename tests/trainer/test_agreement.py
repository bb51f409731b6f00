"""Workers that find each other, or do not; that were started alike, or not: one line, the same on all, in seconds."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

import isthmus
from cases.groups import PRELOADED
from cases.loops import adamw, in_turn, perceptron, sgd
from isthmus import Training, version
from isthmus.cli import main, status
from isthmus.errors import InvalidInput, IsthmusError, WorkerError
from isthmus.partitions import Fixed
from isthmus.trainer import configure
from isthmus.trainer.executors.in_turn import run_in_turn
from isthmus.trainer.task.setup import set_up
from isthmus.trainer.task.terms import PIECE, PIECES, WHOLE, file_mark, items_terms, modules_of
from isthmus.trainer.wire.alike import difference
from isthmus.trainer.wire.rendezvous import check_in, find_place
from isthmus.trainer.work import work

EXAMPLE = (torch.zeros(2, 6),)
TORCHS = re.compile(r"\[[IWEF]\d{4} ")  # how a line of torch's own log begins
SECONDS = 10.0  # in which every disagreement must end

# ------------------------------------------------------------------- the line


@given(st.integers(3, 8), st.data())
def test_the_one_that_is_odd_is_named_whichever_it_is(workers: int, data: st.DataObject) -> None:
    odd = data.draw(st.integers(0, workers - 1))
    said = {worker: {"`a`": "1", "`lr`": "0.2" if worker == odd else "0.1"} for worker in range(workers)}
    other = 1 if odd == 0 else 0
    line = f"`lr` must be the same on all workers: worker {odd} has 0.2, worker {other} has 0.1"
    assert difference(said) == line


def test_all_alike_is_no_difference_in_any_order() -> None:
    assert difference({0: {"`a`": "1", "`b`": "2"}, 1: {"`b`": "2", "`a`": "1"}}) is None


def test_long_values_are_shown_where_they_begin_to_differ() -> None:
    line = difference({0: {"`law`": "x" * 500 + "one" + "y" * 500}, 1: {"`law`": "x" * 500 + "two" + "y" * 500}})
    assert line is not None
    assert len(line) < 250
    assert "xxxtwo" in line
    assert "xxxone" in line


def test_what_else_differs_is_counted() -> None:
    ours, theirs = ({f"`{name}`": value for name in "abcdef"} for value in "12")
    assert str(difference({0: ours, 1: theirs})).endswith("; `b`, `c`, `d` and more differ too")


# ------------------------------------------------------------------- scripts of one's own, in turn


class Net(nn.Module):
    """Of one shape, whatever it computes."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, width), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))


CODE = """
from torch import nn

class Own(nn.Module):
    def forward(self, x):
        return x.{}()
"""


@contextmanager
def module_of(folder: Path, code: str) -> Iterator[Any]:
    """Import a module of one name from some folder."""
    folder.mkdir()
    (folder / "own_network.py").write_text(code)
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("own_network")
    finally:
        del sys.modules["own_network"]
        sys.path.remove(str(folder))
        importlib.invalidate_caches()


def leaky() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 12), nn.LeakyReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))


def start(changes: dict[str, Any]) -> None:
    Training(**{"network": perceptron, "example": EXAMPLE, "optimizer": sgd, "local_steps": 4, **changes})


SCRIPTS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "seed": ({}, {"seed": 7}, "`seed` must be the same on all workers: worker {odd} has 7, worker {other} has 0"),
    "local_steps": ({}, {"local_steps": 5}, "`local_steps` must be .* worker {odd} has 5, worker {other} has 4"),
    "law": ({}, {"law": "uniform"}, "`law` must be .* worker {odd} has 'uniform', worker {other} has 'block'"),
    "core": ({"law": "uniform"}, {"law": "uniform", "core": 0.25}, "`core` must be .* {odd} has 0.25, .* {other} has "),
    "strategy": ({}, {"strategy": "narrow"}, "`strategy` must be .* has 'narrow', worker {other} has 'ist'"),
    "cut": ({}, {"cut": ["hidden"]}, r"`cut` must be .* worker {odd} has \('hidden',\), worker {other} has None"),
    "keep_state": ({}, {"keep_state": False}, "`keep_state` must be .* {odd} has False, worker {other} has True"),
    "wire": ({}, {"wire": "bf16"}, "`wire` must be .* worker {odd} has 'bf16', worker {other} has None"),
    "widths": (
        {"network": Net},
        {"network": lambda: Net(10)},
        r"`network` \(first.weight\) must be .* worker {odd} has 10 x 6 float32, worker {other} has 12 x 6 float32; "
        r"`network` \(first.bias\), .* differ too",
    ),
    "modules": (
        {},
        {"network": leaky},
        r"`network` \(module 1\) must be .* has LeakyReLU\(negative_slope=0.01\), worker {other} has ReLU\(\)",
    ),
    "example": ({}, {"example": (torch.zeros(5, 6).double(),)}, "`example` .* has ... x 6 float64, .* x 6 float32"),
    "law of one's own": (
        {"law": Fixed()},
        {"law": type("Fixed", (Fixed,), {"__repr__": lambda self: "Fixed(2)"})()},
        "`law` must be .* worker {odd} has .*:Fixed', worker {other} has 'fixed'; `strategy` .as a whole. differs too",
    ),
}


@pytest.mark.parametrize("odd", [0, 1, 2])
@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_that_disagree(name: str, odd: int) -> None:
    usual, changed, line = SCRIPTS[name]
    with pytest.raises(InvalidInput) as refused:
        run_in_turn(start, [(changed if worker == odd else usual,) for worker in range(3)])
    assert re.fullmatch(line.format(odd=odd, other=1 if odd == 0 else 0) + ".*", str(refused.value)), refused.value
    assert refused.value.everywhere


def test_a_batch_of_another_size_is_no_disagreement() -> None:
    run_in_turn(start, [({"example": (torch.zeros(size, 6),)},) for size in (2, 3)])


def test_another_code_of_the_same_network(tmp_path: Path) -> None:
    found = []
    for host, function in (("here", "relu"), ("there", "tanh"), ("elsewhere", "relu")):
        with module_of(tmp_path / host, CODE.format(function)) as module:
            found.append(modules_of(nn.Sequential(nn.ReLU(), module.Own())))
    assert found[0] == found[2] != found[1]
    assert [name for (name, here), (_, there) in zip(*found[:2], strict=True) if here != there] == ["1"]
    assert re.fullmatch(r"Own\(\), code \w{8}", dict(found[0])["1"])


@pytest.mark.parametrize("what", ["values", "size"])
def test_another_init_file(what: str, tmp_path: Path) -> None:
    for worker in range(3):
        weights = {name: tensor.contiguous() for name, tensor in Net().state_dict().items()}
        for tensor in weights.values():
            tensor.fill_(0.0)
        if worker == 2 and what == "values":
            weights["last.bias"][1] = 1e-3
        (tmp_path / str(worker)).mkdir()
        text = {"a": "b" * 100} if worker == 2 and what == "size" else None
        save_file(weights, tmp_path / str(worker) / "start.safetensors", text)
    places = [tmp_path / str(worker) / "start.safetensors" for worker in range(3)]
    with pytest.raises(InvalidInput, match=r"`init` \(start.safetensors\) must .* 2 has [\d,]+ bytes, SHA-256 \w{8}, "):
        run_in_turn(start, [({"network": Net, "init": place},) for place in places])


# ------------------------------------------------------------------- runs of the command line, in turn


def table_file(folder: Path, rows: int = 80, nudge: float = 0.0) -> str:
    """Write a file of the same name in another folder, as on another host; its place is then made the same."""
    folder.mkdir()
    random = np.random.default_rng(0)
    values = random.random((rows, 3)).round(3)
    values[-1, -1] += nudge
    lines = [f"{k % 2} " + " ".join(f"{j + 1}:{v:.4f}" for j, v in enumerate(row)) for k, row in enumerate(values)]
    (folder / "rows.libsvm").write_text("\n".join(lines) + "\n")
    return f"libsvm:{folder / 'rows.libsvm'}"


RUNS: dict[str, tuple[dict[str, Any], str]] = {
    "lr": ({"lr": 0.2}, "`lr` must be the same on all workers: worker 1 has 0.2, worker 0 has 0.3"),
    "batch_size": ({"batch_size": 8}, "`batch_size` must be .* worker 1 has 8, worker 0 has 16.*"),
    "rounds": ({"rounds": 3}, "`rounds` must be .* worker 1 has 3, worker 0 has 2.*"),
    "optimizer": ({"optimizer": "adamw"}, "`optimizer` must be .* worker 1 has 'adamw', .* has 'sgd'.*"),
    "schedule": ({"schedule": "constant"}, "`schedule` must be .* worker 1 has 'constant', worker 0 has 'cosine'.*"),
    "autocast": ({"autocast": "bfloat16"}, "`autocast` must be .* worker 1 has 'bfloat16', worker 0 has None.*"),
    "widths": ({"widths": (16, 12)}, r"`widths` must be .* worker 1 has \(16, 12\), worker 0 has \(16, 16\).*"),
}
SMALL = {"workers": 3, "rounds": 2, "local_steps": 2, "batch_size": 16, "widths": (16, 16), "executor": "serial"}


def run_apart(flags: list[dict[str, Any]]) -> str:
    """Return what workers of the command line say that were started with these flags."""
    setups = [set_up(configure(**each), torch.device("cpu")) for each in flags]
    with pytest.raises(InvalidInput) as refused:
        run_in_turn(work, [(setup, None) for setup in setups])
    return str(refused.value)


@pytest.mark.parametrize("name", RUNS)
def test_runs_that_disagree(name: str, tmp_path: Path) -> None:
    changes, line = RUNS[name]
    flags = {**SMALL, "data": table_file(tmp_path / "here"), "lr": 0.3}
    assert re.fullmatch(line, run_apart([flags, flags | changes, flags]))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"nudge": 0.0004}, r"`data` \(SHA-256 of \S+ values\) must be .* worker 1 has \w{8}, worker 0 has \w{8}"),
        ({"rows": 79}, r"`data` \(\S+ samples\) must be .* workers: worker 1 has \d+, worker 0 has \d+;.*"),
    ],
    ids=["other bytes", "fewer rows"],
)
def test_another_file_of_the_same_name(changes: dict[str, Any], line: str, tmp_path: Path, monkeypatch: Any) -> None:
    table_file(tmp_path / "here")
    table_file(tmp_path / "there", **changes)
    setups = []
    for host in ("here", "there", "here"):
        monkeypatch.chdir(tmp_path / host)
        setups.append(set_up(configure(**SMALL, data="libsvm:rows.libsvm"), torch.device("cpu")))
    with pytest.raises(InvalidInput) as refused:
        run_in_turn(work, [(setup, None) for setup in setups])
    assert re.fullmatch(line, str(refused.value))


class Drawn:
    """Items that torch's generator makes random, or some other."""

    def __init__(self, random: Callable[[], Any], length: int = 40) -> None:
        self.random, self.length = random, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        return torch.full((3,), float(number)) + self.random(), number % 2


def test_items_are_compared_but_for_what_is_drawn_anew_each_time() -> None:
    plain = items_terms({"training": Drawn(lambda: 0.0)})
    assert plain != items_terms({"training": Drawn(lambda: 1e-3)})
    assert plain != items_terms({"training": Drawn(lambda: 0.0, 39)})
    torch.manual_seed(1)
    state = torch.get_rng_state()
    noisy = items_terms({"training": Drawn(lambda: torch.rand(3))})
    assert torch.equal(torch.get_rng_state(), state)  # what is trained does not hang on it
    torch.manual_seed(2)
    assert noisy == items_terms({"training": Drawn(lambda: torch.rand(3))})
    other = np.random.default_rng(0)
    drawn = items_terms({"training": Drawn(lambda: other.random())})
    assert drawn == items_terms({"training": Drawn(lambda: other.random())})
    assert list(drawn) == list(plain)[:2]


def test_a_large_file_is_read_in_pieces(tmp_path: Path) -> None:
    place = tmp_path / "large"
    with place.open("wb") as opened:
        opened.truncate(WHOLE + 5 * PIECE)  # of zeros, which take no room
    mark = file_mark(place)
    assert mark.startswith(f"{WHOLE + 5 * PIECE:,} bytes, SHA-256 ")
    with place.open("r+b") as opened:
        opened.seek(-1, os.SEEK_END)
        opened.write(b"x")
    assert file_mark(place) != mark
    assert PIECES * PIECE <= WHOLE


# ------------------------------------------------------------------- processes that find each other


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Took(NamedTuple):
    """Seconds of a process: by the clock, and without those in which it or another was ready to run and got no core."""

    clock: float
    net: float


def by_hand(workers: list[dict[str, Any]], job: Callable[..., None], *arguments: Any) -> list[tuple[int, str, Took]]:
    """Start a process for each dictionary of variables; return their exit codes, what they wrote, and seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    usual = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": len(workers)}
    places = [Path(f"said-{time.monotonic_ns()}-{number}").absolute() for number in range(len(workers))]
    processes = [
        context.Process(target=_enter, args=({**usual, **each}, place, job, arguments))
        for each, place in zip(workers, places, strict=True)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found = []
    written = [place.read_text().splitlines() for place in places]
    starved = sum(float(lines[-1].split()[1]) for lines in written)
    for process, (*lines, last) in zip(processes, written, strict=True):
        ours = (line for line in lines if line.startswith(("isthmus:", "[")))
        own = [line for line in ours if not TORCHS.match(line)]  # torch was loaded: it cannot be hushed
        clock = float(last.split()[0])
        found.append((int(process.exitcode or 0), "\n".join(own), Took(clock, clock - starved)))
    return found


def _enter(variables: dict[str, Any], place: Path, job: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Be a command in a process of its own: one line and an exit code."""
    begun = time.monotonic()
    written = os.open(place, os.O_WRONLY | os.O_CREAT)
    os.dup2(written, 1)
    os.dup2(written, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    sys.__stderr__ = sys.stderr
    os.environ.update({name: str(value) for name, value in variables.items()})
    code = 0
    try:
        job(*arguments)
    except IsthmusError as error:
        status.say(error)
        code = status.WORKER_FAILED if isinstance(error, WorkerError) else status.BAD_INPUT
    except SystemExit as stop:
        code = int(stop.code or 0)
    starved = int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    print(f"\n{time.monotonic() - begun:.1f} {starved:.1f}", flush=True)
    os._exit(code)


def meet(join_timeout: float = SECONDS) -> None:
    time.sleep(float(os.environ.get("LATE", "0")))
    place = find_place(join_timeout)
    assert place is not None
    if os.environ.get("OTHER_VERSION"):
        version.__version__ = "0.0.1"
    check_in(place, join_timeout)


def ranks(count: int, **changes: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the variables of some workers; those of worker k are changed by ``rank_k``."""
    return [{"RANK": rank, **changes.get(f"rank_{rank}", {})} for rank in range(count)]


MEETINGS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "same rank": (
        [*ranks(3, rank_1={"LATE": 2}), {"RANK": 2}],
        r"RANK=2 was given twice, to process \d+ on \S+ and to process \d+ on \S+: give every worker one of its own",
    ),
    "other worlds": (
        ranks(3, rank_1={"WORLD_SIZE": 5}),
        "`WORLD_SIZE` must be the same on all workers: worker 1 has 5, worker 0 has 3",
    ),
    "other version": (
        ranks(3, rank_2={"OTHER_VERSION": 1}),
        "the version of isthmus must be the same on all workers: worker 2 has 0.0.1, worker 0 has "
        f"{re.escape(version.__version__)}",
    ),
}


@pytest.mark.parametrize("name", MEETINGS)
def test_workers_that_cannot_be_one_run(name: str) -> None:
    workers, line = MEETINGS[name]
    if name == "same rank":
        workers = [{"WORLD_SIZE": 3, **each} for each in workers]
    for code, said, took in by_hand(workers, meet):
        assert (code, bool(re.fullmatch(f"isthmus: {line}", said))) == (status.BAD_INPUT, True), said
        assert took.net < SECONDS


def test_all_that_have_not_come_are_named_on_time() -> None:
    found = by_hand([{"RANK": rank, "WORLD_SIZE": 4} for rank in (0, 2)], meet, 1.0)
    assert max(took.clock for _, _, took in found) >= 1.0  # one that comes later need not wait so long
    assert max(took.net for _, _, took in found) < SECONDS
    for code, said, _ in found:
        assert code == status.WORKER_FAILED
        assert re.fullmatch(
            r"isthmus: workers 1 and 3 have not come within 1 s: start them with RANK=1,3 WORLD_SIZE=4 "
            r"MASTER_ADDR=127.0.0.1 MASTER_PORT=\d+, or wait longer with --join-timeout",
            said,
        )


def test_nobody_keeps_the_store() -> None:
    [(code, said, took)] = by_hand([{"RANK": 1, "WORLD_SIZE": 2}], meet, 1.0)
    assert code == status.WORKER_FAILED
    assert said.startswith("isthmus: worker 0 has not come within 1 s, nobody listens at 127.0.0.1:")
    assert took.net < SECONDS


@contextmanager
def another_program(answer: bytes | None) -> Iterator[int]:
    """Listen, and answer whatever is said, or nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                held.append(connection)
                if answer is not None:
                    connection.recv(100)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])


@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["silent", "http"])
def test_a_port_that_another_program_has(answer: bytes | None) -> None:
    with another_program(answer) as port:
        for code, said, took in by_hand([{"RANK": rank, "MASTER_PORT": port} for rank in (0, 1)], meet):
            assert code == status.BAD_INPUT
            assert said == f"isthmus: `MASTER_PORT` {port} at 127.0.0.1 is in use by another program: take another port"
            assert took.net < SECONDS


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"RANK": "x"}, "`RANK` must be a whole number from 0 to 1, got 'x'"),
        ({"RANK": "2"}, "`RANK` must be a whole number from 0 to 1, got '2'"),
        ({"WORLD_SIZE": "0"}, "`WORLD_SIZE` must be a whole number at least 1, got '0'"),
        ({"WORLD_SIZE": "two"}, "`WORLD_SIZE` must be a whole number at least 1, got 'two'"),
        ({"MASTER_PORT": "70000"}, "`MASTER_PORT` must be a whole number from 1 to 65535, got '70000'"),
        ({"MASTER_PORT": ""}, "RANK and WORLD_SIZE are set but MASTER_PORT is not: the workers cannot find each other"),
        ({"MASTER_ADDR": "no.such.host.invalid"}, "`MASTER_ADDR` must be the address of worker 0's host, got 'no.such"),
    ],
)
def test_variables_that_do_not_do(variables: dict[str, str], line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1234"}
    for name, value in (usual | variables).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    with pytest.raises(InvalidInput) as refused:
        find_place(0.0)
    assert str(refused.value).startswith(line)


def test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    assert find_place(0.0) is None
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert find_place(0.0) is None


# ------------------------------------------------------------------- whole runs in processes


def train_apart(flags: list[str], changes: list[str]) -> None:
    """Be a worker of the command line, of which the last was started with other flags."""
    mine = changes if os.environ["RANK"] == "2" else flags
    main(["train", *mine, "--workers", "3", "--rounds", "2", "--out", f"out-{os.environ['MASTER_PORT']}"])


def test_flags_that_disagree_end_every_process_with_one_line() -> None:
    for code, said, took in by_hand(ranks(3), train_apart, ["--lr", "0.1"], ["--lr", "0.2"]):
        assert code == status.BAD_INPUT
        assert said == "isthmus: `lr` must be the same on all workers: worker 2 has 0.2, worker 0 has 0.1"
        assert took.net < SECONDS


def test_data_that_one_worker_lacks_are_told_to_all(tmp_path: Path) -> None:
    place = table_file(tmp_path / "here", rows=300)
    for code, said, took in by_hand(ranks(3), train_apart, ["--data", place], ["--data", f"{place}x"]):
        assert code == status.BAD_INPUT
        assert said.startswith(f"isthmus: worker 2: {place.partition(':')[2]}x: ")
        assert took.net < SECONDS


SCRIPT = """
import os, sys, time
import torch
from torch import nn
import isthmus
from isthmus.errors import InvalidInput

def network():
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))

def start(**changes):
    mine = changes if os.environ["RANK"] == "1" else {}
    sgd = lambda module: torch.optim.SGD(module.parameters(), lr=0.1)
    return isthmus.Training(network, (torch.zeros(2, 6),), sgd, **mine)

try:
    start(cut=["hidden"])
except InvalidInput as error:
    os.write(1, f"refused: {error}\\n".encode())  # whole lines: three processes write to one pipe
begun = time.monotonic()
import atexit
atexit.register(lambda: os.write(1, f"took {time.monotonic() - begun:.1f}\\n".encode()))
start(local_steps=7)
"""


def test_under_torchrun_every_worker_ends_by_itself_and_one_says_why(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    source = str(Path(isthmus.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "3", "--master-addr", "127.0.0.1",
         "--master-port", str(free_port()), str(tmp_path / "script.py")],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    cut = "`cut` must be the same on all workers: worker 1 has ('hidden',), worker 0 has None"
    assert done.stdout.count(f"refused: {cut}") == 3
    assert max(float(seconds) for seconds in re.findall(r"took (\S+)", done.stdout)) < SECONDS
    line = "isthmus: `local_steps` must be the same on all workers: worker 1 has 7, worker 0 has 50"
    assert [at.startswith("isthmus: ") for at in done.stderr.splitlines()].count(True) == 1
    assert line in done.stderr.splitlines()
    assert re.findall(r"exitcode  : (\S+)", done.stderr) == ["2"] * 3
    assert line in done.stderr.splitlines()[-2]  # torchrun's own report ends with it


# ------------------------------------------------------------------- what listens


def listens(process: int) -> list[str]:
    """Return the addresses at which a process listens for TCP connections."""
    links = []
    for each in Path(f"/proc/{process}/fd").iterdir():
        try:
            links.append(os.readlink(each))
        except OSError:
            continue
    own = {link[8:-1] for link in links if link.startswith("socket:[")}
    found = []
    for table, width in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in own:
                digits = words[1].partition(":")[0]
                packed = b"".join(bytes.fromhex(digits[k : k + 8])[::-1] for k in range(0, len(digits), 8))
                found.append(socket.inet_ntop(width, packed))
    return sorted(found)


def shown(*others: int) -> list[str]:
    """Begin a training; return where this process listens while it goes on, and some others."""
    torch.set_num_threads(1)
    training = Training(perceptron, EXAMPLE, adamw, local_steps=1)
    with training:
        training.merge()
        return [address for process in (os.getpid(), *others) for address in listens(process)]


def show() -> None:
    print(json.dumps(shown()), flush=True)


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@on_linux
def test_by_hand_on_one_host_nothing_listens_off_loopback() -> None:
    found = [json.loads(said.splitlines()[0]) for _, said, _ in by_hand(ranks(2), show)]
    assert all(set(each) == {"127.0.0.1"} for each in found)
    assert len(found[0]) > len(found[1])  # worker 0 keeps the store


@on_linux
def test_by_hand_it_listens_on_the_interface_that_was_asked_for_only() -> None:
    at = {"MASTER_ADDR": "127.0.0.2"}
    found = [json.loads(said.splitlines()[0]) for _, said, _ in by_hand(ranks(2, rank_0=at, rank_1=at), show)]
    assert found[0].count("127.0.0.2") == 1  # the store
    assert set(found[1]) == {"127.0.0.1"}


@on_linux
def test_launched_nothing_listens_off_loopback() -> None:
    found = isthmus.launch(shown, os.getpid(), workers=2)
    assert set(found) == {"127.0.0.1"}


@on_linux
def test_in_turn_nothing_listens() -> None:
    before = set(listens(os.getpid()))
    assert all(set(found) <= before for found in in_turn(shown, 2))
