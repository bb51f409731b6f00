"""How exact the lines of `isthmus slow` are: payload over TCP, answers, each to each, and what carrying takes.

    python benchmarks/slow_lines.py        (root; half a minute)
"""

import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from contextlib import closing

from isthmus.line import Line
from isthmus.slow import Net, hosts

PAIRS = [(Line.of("100mbit"), 20), (Line.of("100mbit", "10ms"), 40), (Line.of("100mbit", "5ms", up="20mbit"), 10)]
ALL = [(4, Line.of("100mbit"), 10), (4, Line.of("100mbit", "10ms"), 10), (8, Line.of("10mbit", "10ms"), 0.5)]
PORT = 7000
EACH_TO_EACH = """
import os, socket, sys, threading, time
size, own, hosts = int(sys.argv[1]), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
listening = socket.create_server(("", 7000))
time.sleep(1)
def send(host):
    with socket.create_connection((f"10.77.0.{host + 1}", 7000)) as end:
        end.sendall(bytes(size))
        end.recv(1)
def receive():
    with listening.accept()[0] as end:
        left = size
        while left:
            left -= len(end.recv(1 << 20))
        end.sendall(b"1")
others = [host for host in range(hosts) if host != own]
both = [threading.Thread(target=send, args=(host,)) for host in others]
both += [threading.Thread(target=receive) for _ in others]
begun = time.monotonic()
for each in both: each.start()
for each in both: each.join()
print(8 * size * len(others) / (time.monotonic() - begun))
"""


def pair(line: Line, megabytes: float) -> dict[str, object]:
    """From host 0 to host 1: bits of payload a second, the start included, and the median of 20 answers."""
    with hosts(2, line) as net:
        with net.spaces[1].inside(lambda: socket.create_server((net.address(1), PORT))) as listening:
            ours = net.spaces[0].inside(lambda: socket.create_connection((net.address(1), PORT)))
            theirs, _ = listening.accept()
        with closing(ours), closing(theirs):
            for each in (ours, theirs):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answers = [answer(ours, theirs) for _ in range(20)]
            size = round(megabytes * 1e6)
            begun = time.monotonic()
            sending = threading.Thread(target=ours.sendall, args=(bytes(size),))
            sending.start()
            left = size
            while left:
                left -= len(theirs.recv(1 << 20))
            seconds = time.monotonic() - begun
            sending.join()
    return {"megabytes": megabytes, "mbit": 8e-6 * size / seconds, "answer_ms": 1e3 * statistics.median(answers)}


def answer(ours: socket.socket, theirs: socket.socket) -> float:
    begun = time.monotonic()
    for source, to in ((ours, theirs), (theirs, ours)):
        source.sendall(b"ping")
        to.recv(4)
    return time.monotonic() - begun


def each_to_each(net: Net, megabytes: float) -> dict[str, object]:
    """Each host sends so much to every other: bits of payload a second each way, and seconds of CPU for carrying."""
    command = [sys.executable, "-c", EACH_TO_EACH, str(round(megabytes * 1e6))]
    started = [net.popen(host, command, stdout=subprocess.PIPE, text=True) for host in range(len(net))]
    found = [float(each.communicate()[0]) / 1e6 for each in started]
    return {"megabytes": megabytes, "mbit": [min(found), max(found)], "relay_seconds": net.relay_seconds()}


def main() -> None:
    for line, megabytes in PAIRS:
        print(json.dumps({"hosts": 2, "line": line.shown, **pair(line, megabytes)}), flush=True)
    for n, line, megabytes in ALL:
        with hosts(n, line) as net:
            print(json.dumps({"hosts": n, "line": line.shown, **each_to_each(net, megabytes)}), flush=True)


if __name__ == "__main__":
    main()
