"""What heartbeats cost: CPU time of one worker's monitor while a store on loopback holds the beats of all the others.

    python benchmarks/heartbeats.py

The store and the others' beats live in another process, whose time is not counted.
"""

from __future__ import annotations

import multiprocessing
import socket
import time

import torch.distributed as dist

from isthmus.trainer.membership.beat import Beat
from isthmus.trainer.membership.monitor import Monitor

WORKERS, SECONDS = (4, 16, 64), 10


def beat(seat: int, number: int = 0) -> Beat:
    return Beat(seat, 0, 4711, 41, "computing", 10**9, 10**9, 0.123456789, number)


def others(listener: socket.socket) -> None:
    """Hold the store, and beat once a second for everybody but worker 0."""
    port = listener.getsockname()[1]
    server = dist.TCPStore(
        "127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
    )
    number = 0
    while True:
        number += 1
        for seat in range(1, max(WORKERS)):
            server.set(f"isthmus/beat/{seat}", beat(seat, number).to_text())
        time.sleep(1)


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    process = multiprocessing.Process(target=others, args=(listener,), daemon=True)
    process.start()
    listener.close()
    store = dist.PrefixStore("isthmus", dist.TCPStore("127.0.0.1", port, is_master=False))
    for workers in WORKERS:
        monitor = Monitor(
            store,
            0,
            status=lambda: beat(0),
            members=lambda workers=workers: range(workers),
            incarnations=dict,
            waiting=lambda: None,
            deadline=lambda: 30.0,
            lose=print,
            publish=lambda known: None,
        )
        before = time.process_time()
        monitor.start()
        time.sleep(SECONDS)
        spent = time.process_time() - before
        monitor.stop()
        print(f"{workers} workers: {100 * spent / SECONDS:.2f} % of a core")
    process.kill()


if __name__ == "__main__":
    main()
