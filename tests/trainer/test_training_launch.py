"""Workers started from a script, from a notebook, by torchrun, by bare variables; and where they listen."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

JOB = """
import torch, isthmus
from torch import nn
from pathlib import Path

def listening():
    \"\"\"Addresses this process listens on, as the kernel has them.\"\"\"
    own = {p.readlink().name for p in Path("/proc/self/fd").iterdir() if p.exists() or p.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                found.add(fields[1].rpartition(":")[0])
    return found

def make_optimizer(module):
    return torch.optim.SGD(module.parameters(), lr=0.1)

def job(rate):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    training = isthmus.Training(network, (torch.zeros(2, 4),), make_optimizer, local_steps=2)
    for step in range(4):
        training.module(torch.ones(2, 4)).sum().mul(rate).backward()
        training.optimizer.step(); training.optimizer.zero_grad()
    training.close()
    local = {"0100007F", "00000000000000000000000001000000"}
    assert listening() <= local, listening()
    return [training.worker, training.workers, training.round]
"""


def run(code: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], input=code, capture_output=True, text=True, env={**os.environ, **variables}
    )


def script(folder: Path, end: str) -> str:
    path = folder / "script.py"
    path.write_text(JOB + textwrap.dedent(end))
    return str(path)


def test_a_script_launches_workers_and_gets_the_result_of_the_first(tmp_path: Path) -> None:
    path = script(tmp_path, 'if __name__ == "__main__":\n    print(isthmus.launch(job, 0.5, workers=3))\n')
    done = run("", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[0, 3, 2]\n"


def test_without_the_guard_one_line_says_so(tmp_path: Path) -> None:
    path = script(tmp_path, "\nprint('once')\nprint(isthmus.launch(job, 0.5, workers=2))\n")
    done = run("", path)
    assert done.stdout == "once\n"
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("isthmus.errors.InvalidInput: isthmus.launch must be called under `if __name__ ==")
    assert re.search(r"\(script\.py, line \d+\)", last)


def test_a_notebook_launches_what_it_defines() -> None:
    """The main module has no file, as in a notebook; the function was made a moment ago."""
    done = run(JOB + "\nprint(isthmus.launch(job, 0.5, workers=2))\n", "-")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[0, 2, 2]\n"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("launch(lambda: 1)", "cannot hand the function to other processes"),
        ("launch(job, lambda: 1)", "cannot hand an argument to other processes"),
        ("launch(job, 1, workers=0)", "`workers` must be at least 1, got 0"),
    ],
)
def test_what_other_processes_cannot_import_is_refused(call: str, message: str, tmp_path: Path) -> None:
    done = run("", script(tmp_path, f'if __name__ == "__main__":\n    isthmus.{call}\n'))
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("isthmus.errors.InvalidInput: ")
    assert message in last


def test_the_usual_variables_make_a_group_that_listens_on_loopback_only(tmp_path: Path) -> None:
    """As Kubernetes or a script of one's own sets them, without torchrun; nobody calls init_process_group."""
    path = script(tmp_path, "\nprint(job(0.5))\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [
        subprocess.Popen([sys.executable, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                         env={**os.environ, **shared, "RANK": str(rank)})
        for rank in range(2)
    ]  # fmt: skip
    for rank, process in enumerate(started):
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert out == f"[{rank}, 2, 2]\n"


def test_torchrun(tmp_path: Path) -> None:
    path = script(tmp_path, "\nimport os\nos.write(1, f'{job(0.5)}\\n'.encode())\n")  # in one piece: both write there
    done = run("", "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1", path)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["[0, 2, 2]", "[1, 2, 2]"]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR is not: the workers cannot find each other"),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "4"}, "Slurm started 4 tasks but RANK and WORLD_SIZE are not set"),
    ],
    ids=["no master", "slurm"],
)
def test_variables_that_do_not_suffice(variables: dict[str, str], message: str, tmp_path: Path) -> None:
    done = run("", script(tmp_path, "\njob(0.5)\n"), **variables)
    assert message in done.stderr.strip().splitlines()[-1]


def test_one_process_of_one_needs_no_group(tmp_path: Path) -> None:
    done = run("", script(tmp_path, "\nprint(job(0.5))\n"), RANK="0", WORLD_SIZE="1")
    assert done.stdout == "[0, 1, 2]\n", done.stderr
