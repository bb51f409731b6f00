"""Public networks, traced, cut for four workers and compared with an independent reference (`zoo/judge.py`).

    pip install -e '.[train,bench]'
    python benchmarks/public_networks.py run --processes 2      # rows that are there are not made again
    python benchmarks/public_networks.py run resnet18 bert      # some of them
    python benchmarks/public_networks.py run registry           # the networks of the tests, for the gallery
    python benchmarks/public_networks.py show --out docs/measured/networks.jsonl  # tables of docs/networks.md
    python benchmarks/public_networks.py draw                   # its figure

Every network runs in a process of its own, on one thread, with a limit of processor time and of memory; nothing is
downloaded. A row is right, wrong (results, gradients, buffers or a merge differ), crash (an error that is no one line
of isthmus), refused (with its line), slow (tracing and cutting take more than 15 s of processor time), or useless (the
worker that holds most has more than half of the parameters); a package that is not installed is left out and said.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("hand", "idioms", "vision", "graphs", "language", "timms", "registry")
SLOW = 15.0
VERDICTS = ("right", "wrong", "crash", "refused", "slow", "useless", "not compared", "not run")


def main() -> None:
    """Run networks, one, or show the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "one", "show", "draw", "list"))
    parser.add_argument("names", nargs="*", help="networks, or sources; all where none is named")
    parser.add_argument("--out", type=Path, default=Path("runs/public-networks"), help="folder of the rows")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--cpu", type=int, default=240, help="seconds of processor time a network may take")
    parser.add_argument("--memory", type=float, default=12.0, help="GiB a process may take")
    parser.add_argument("--again", nargs="*", default=[], help="verdicts whose rows are made again")
    options = parser.parse_args()
    if options.what == "one":
        one(*options.names, options)
    elif options.what == "show":
        print(gallery(rows(options.out)))
    elif options.what == "draw":
        draw(ROOT / "docs" / "images" / "networks.png")
    else:
        networks = zoo(options.names)
        if options.what == "list":
            print("\n".join(f"{source}: {name}" for name, source in networks.items()))
        else:
            run(networks, options)


def zoo(names: list[str]) -> dict[str, str]:
    """Return the networks asked for, each with its source; say which packages are missing."""
    found: dict[str, str] = {}
    for source in SOURCES:
        try:
            networks = importlib.import_module(f"zoo.{source}").NETWORKS
        except (ImportError, RuntimeError) as failure:  # or one that does not fit the torch that is there
            print(f"left out: {source} ({failure})", file=sys.stderr)
            continue
        for network in networks:
            if network.name in names or source in names or (not names and network.judged):
                if network.name in found:
                    raise SystemExit(f"two networks are called {network.name}")
                found[network.name] = source
    return found


def run(names: dict[str, str], options: argparse.Namespace) -> None:
    """Make the rows that are missing."""
    options.out.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = place(options.out, name)
        if path.is_file() and json.loads(path.read_text()).get("verdict", "none") in {*options.again, "none"}:
            path.unlink()
    missing = [name for name in names if not place(options.out, name).is_file()]
    print(f"{len(names)} networks, {len(missing)} to run", flush=True)
    started = time.monotonic()
    with ThreadPoolExecutor(options.processes) as pool:
        for number, row in enumerate(pool.map(lambda name: child(name, names[name], options), missing), 1):
            cost = f"{row.get('seconds', -1):.1f} s, share {row.get('share', -1):.2f}"
            took = f"{number}/{len(missing)} {time.monotonic() - started:.0f} s"
            print(f"{took}  {row['name']}: {row['verdict']} ({cost}) {row['line'][:160]}", flush=True)


def child(name: str, source: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one network in a process of its own and return its row, whatever becomes of it."""
    command = [sys.executable, __file__, "one", name, source, "--out", str(options.out), "--cpu", str(options.cpu),
               "--memory", str(options.memory)]  # fmt: skip
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    path = place(options.out, name)
    row = json.loads(path.read_text()) if path.is_file() else {"name": name}
    if "verdict" not in row:
        why = (ended.stderr.strip().splitlines() or [""])[-1][:300]
        over = ended.returncode in (-9, -24) or "MemoryError" in why or "can't allocate memory" in why
        if over and "seconds" in row:
            row |= {"verdict": "not compared", "line": f"the comparison ended with code {ended.returncode}: {why}"}
        elif over:
            row |= {"verdict": "slow", "line": f"ended with code {ended.returncode}: {why}"}
        else:
            row |= {"verdict": "not run", "line": f"code {ended.returncode}: {why}"}
        path.write_text(json.dumps(row, indent=1))
    return row


def one(name: str, source: str, options: argparse.Namespace) -> None:
    """Judge one network in this process and leave its row."""
    resource.setrlimit(resource.RLIMIT_CPU, (options.cpu, options.cpu + 5))
    size = int(options.memory * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    import torch

    from zoo.judge import judge

    torch.set_num_threads(1)
    networks = importlib.import_module(f"zoo.{source}").NETWORKS
    network = next(each for each in networks if each.name == name)
    path = place(options.out, name)
    base = {"name": name, "source": network.source, "torch": torch.__version__}

    def note(row: dict[str, Any]) -> None:
        path.write_text(json.dumps(base | row, indent=1))

    try:
        row = judge(network, note, time.process_time)
        if row["verdict"] == "right" and row["seconds"] > SLOW:
            row |= {"verdict": "slow", "line": f"tracing and cutting took {row['seconds']:.0f} s"}
    except MemoryError:
        raise
    except Exception as failure:
        frames = traceback.extract_tb(failure.__traceback__)
        ours = any("isthmus/" in frame.filename for frame in frames)
        where = frames[-1]
        known = json.loads(path.read_text()) if path.is_file() else {}
        line = f"{type(failure).__name__}: {' '.join(str(failure).split())[:300]} ({where.filename}:{where.lineno})"
        row = known | {"verdict": "crash" if ours else "not run", "line": line}
        row["traceback"] = traceback.format_exc()[-6000:]
    note(row)


def place(folder: Path, name: str) -> Path:
    """Return the file of a network's row."""
    return folder / f"{name.replace('/', '_').replace(' ', '_')}.json"


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a folder, or of a file with one a line, by source and name."""
    if folder.is_file():
        found = [json.loads(line) for line in folder.read_text().splitlines()]
    else:
        found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return sorted(found, key=lambda row: (row.get("source", ""), row["name"].lower()))


def gallery(found: list[dict[str, Any]]) -> str:
    """Return counts and tables as Markdown: public networks, then those of the tests."""
    own = [row for row in found if row["verdict"] == "elsewhere"]
    public = [row for row in found if row not in own]
    counts = Counter(row["verdict"] for row in public)
    said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
    parts = [f"{len(public)} networks: {said}", *table(public)]
    return "\n".join([*parts, "", *table(own)] if own else parts)


def table(found: list[dict[str, Any]]) -> list[str]:
    """Return the rows of a table."""
    lines = ["", "| network | of | parameters | cut | share | s | kept whole, and why | verdict |"]
    lines.append("| - | - | -: | - | -: | -: | - | - |")
    for row in found:
        cut = ", ".join(f"{count} {kind}" for kind, count in sorted(row.get("cut", {}).items())) or "nothing"
        share = f"{row['share']:.2f}" if "share" in row else ""
        seconds = f"{row['seconds']:.1f}" if "seconds" in row else ""
        verdict = row["verdict"] + (f": {row['line'][:200]}" if row["line"] else "")
        size = f"{row.get('parameters', 0):,}"
        cells = (row["name"], row.get("source", ""), size, cut, share, seconds, kept(row), verdict)
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return lines


def kept(row: dict[str, Any]) -> str:
    """Return the commonest reasons for which units are kept whole, those of every network left out."""
    reasons = Counter()
    for reason, count in row.get("kept", []):
        said = reason.split(" (")[0]
        if said not in ("input 0", "returned by the network", "looked up by index", "the kernel slides over it"):
            reasons[said] += count
    return ", ".join(f"{count} {said}" for said, count in reasons.most_common(3))


def draw(path: Path) -> None:
    """Draw who holds which units of three networks, and save it."""
    sys.path.insert(0, str(ROOT / "src"))
    import matplotlib.pyplot as plt
    import torch
    from matplotlib.patches import Patch

    import isthmus
    from zoo.hand import NETWORKS

    workers = 4
    colours = plt.get_cmap("tab10").colors[:workers]
    names = ("nanoGPT, masks of -inf", "U-Net", "experts by einsum")
    figure, panels = plt.subplots(1, len(names), figsize=(13, 4.2), width_ratios=(2, 2, 1), layout="constrained")
    for panel, name in zip(panels, names, strict=True):
        network = next(each for each in NETWORKS if each.name == name)
        torch.manual_seed(0)
        model, (args, kwargs) = network.build(), network.call(network.batch, network.sizes[0])
        coupling = isthmus.trace(model, args, kwargs)
        partition = coupling.partition(workers, seed=0)
        for row, held in enumerate(partition.held.values()):
            size = sum(len(units) for units in held)
            for worker, units in enumerate(held):
                panel.barh([row] * len(units), [1 / size] * len(units), left=[unit / size for unit in units],
                           height=0.7, color=colours[worker])  # fmt: skip
            panel.text(1.02, row, str(size), va="center", fontsize=7)
        panel.set_yticks(range(len(partition.held)), list(partition.held), fontsize=7)
        panel.set(title=name, xlim=(0, 1.12), xticks=[])
        panel.invert_yaxis()
        panel.spines[:].set_visible(False)
    figure.legend([Patch(color=colour) for colour in colours], [f"worker {worker}" for worker in range(workers)],
                  loc="outside lower center", ncols=workers, frameon=False)  # fmt: skip
    figure.savefig(path, dpi=110)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
