"""Real process groups for tests, made in a tenth of a second: forked from a server that has torch loaded already."""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Callable
from typing import Any

import torch.distributed as dist

from isthmus.trainer.executors import nursery

# What a launcher loads, but for the first, by which its server dies with it.
PRELOADED = ["isthmus.trainer.run", *nursery._PRELOADED[1:]]


class Failed(str):
    """What a worker's error says."""


def run_group(function: Callable[..., Any], workers: int, *arguments: Any) -> list[Any]:
    """Call ``function(*arguments)`` in ``workers`` processes inside one gloo group; return the results by worker."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    store = dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())
    answers = context.SimpleQueue()
    processes = [
        context.Process(target=_enter, args=(function, arguments, port, workers, rank, answers))
        for rank in range(workers)
    ]
    for process in processes:
        process.start()
    results: dict[int, Any] = {}
    errors: dict[int, Failed] = {}
    while len(results) + len(errors) < workers and (not errors or _comes(answers)):
        rank, result = answers.get()
        (errors if isinstance(result, Failed) else results)[rank] = result
    if errors:
        for process in processes:
            process.kill()
        raise RuntimeError("; ".join(f"worker {rank}: {text}" for rank, text in errors.items()))
    for process in processes:
        process.join()
    del store
    return [results[rank] for rank in range(workers)]


def _comes(answers: Any) -> bool:
    """Whether another worker answers soon: one that fails takes the others with it, and they may say so first."""
    until = time.monotonic() + 5
    while answers.empty() and time.monotonic() < until:
        time.sleep(0.05)
    return not answers.empty()


def _enter(function: Any, arguments: Any, port: int, workers: int, rank: int, answers: Any) -> None:
    try:
        store = dist.TCPStore("127.0.0.1", port, is_master=False)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=workers)
        answers.put((rank, function(*arguments)))
        dist.barrier()
        dist.destroy_process_group()
    except Exception as error:
        answers.put((rank, Failed(f"{type(error).__name__}: {error}")))
