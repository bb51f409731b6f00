"""Nobody answers torch's questions for names: workers come together all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from isthmus import launch
from isthmus.trainer.membership.link import join
from isthmus.trainer.wire.resolver import OPTIONS

OWN_NETWORK = ["unshare", "--user", "--map-root-user", "--mount", "--net"]
# A network in which there is only this host, whose name server takes every question and answers none.
ALONE = """
import fcntl, os, pathlib, socket, struct, subprocess, sys, tempfile

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
    fcntl.ioctl(asking.fileno(), 0x8914, struct.pack("16sh", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
mute = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
mute.bind(("127.0.0.1", 53))
with tempfile.NamedTemporaryFile("w") as names:
    names.write("nameserver 127.0.0.1\\n")
    names.flush()
    subprocess.run(["mount", "--bind", names.name, "/etc/resolv.conf"], check=True)
    code = subprocess.run(sys.argv[1:]).returncode
mute.setblocking(False)
print("asked" if mute.recv(512) else "")
sys.exit(code)
"""
WORK = """
from isthmus import launch
from isthmus.trainer.membership.link import join

def job():
    return join().workers

if __name__ == "__main__":
    print(launch(job, workers=2), "workers")
"""


def own_network() -> bool:
    """Whether a network of one's own can be had on this machine."""
    try:
        return subprocess.run([*OWN_NETWORK, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not own_network(), reason="no network of one's own: unshare is missing, or not allowed")
def test_workers_come_together_where_no_name_server_answers(tmp_path: Path) -> None:
    """Torch takes the store for lost after the time it is given, 5 s once; each question ends after 6."""
    (tmp_path / "alone.py").write_text(ALONE)
    (tmp_path / "work.py").write_text(WORK)
    command = [*OWN_NETWORK, sys.executable, str(tmp_path / "alone.py"), sys.executable, str(tmp_path / "work.py")]
    done = subprocess.run(
        command, env={**os.environ, "RES_OPTIONS": "timeout:3 attempts:2"}, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["2 workers", "asked"]


def options() -> str | None:
    join()
    return os.environ.get("RES_OPTIONS")


def test_questions_are_asked_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the user has said how; and in workers only."""
    monkeypatch.delenv("RES_OPTIONS", raising=False)
    assert launch(options, workers=2) == OPTIONS
    assert "RES_OPTIONS" not in os.environ
    monkeypatch.setenv("RES_OPTIONS", "attempts:3")
    assert launch(options, workers=1) == "attempts:3"
