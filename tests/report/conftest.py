"""Realistic run folders, written as the commands write them, and the browser."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cases.browser import wait_until
from isthmus.line import VARIABLE, Line
from isthmus.randomness import generator
from isthmus.records import RunWriter

# bytes a round and direction, parameters of a worker, memory, operations, final accuracy
COSTS = {
    "ist": (330_000, 165_000, 2.7e6, 53e9, 0.872),
    "narrow": (330_000, 165_000, 2.7e6, 53e9, 0.886),
    "local-sgd": (2_680_000, 669_706, 10.7e6, 301e9, 0.892),
    "data-parallel": (26_800_000, 669_706, 10.7e6, 301e9, 0.8998),
}


class Runs:
    """Writes runs below one folder; every method returns the run's path."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def training(self, name: str, strategy: str = "ist", status: str | None = "finished", rounds: int = 40,
                 seed: int = 0, line: Line | None = None, capacities: Sequence[float] | None = None,
                 **config: Any) -> Path:  # fmt: skip
        traffic, parameters, memory, operations, goal = COSTS.get(strategy, COSTS["ist"])
        flags = {
            "data": "digits", "strategy": strategy, "law": "fixed", "workers": 4, "widths": [512, 512], "core": 0.0,
            "local_steps": 10, "lr": 0.1, "seed": seed, "executor": "processes", **config,
        }  # fmt: skip
        noise = generator(seed, f"test/{name}")
        with pytest.MonkeyPatch.context() as patch:
            if line is not None:
                patch.setenv(VARIABLE, json.dumps(line.record()))
            writer = RunWriter(self.root / name, "train", flags, ["isthmus", "train", "--strategy", strategy])
        clock = 0.0
        for at in range(rounds + 1):
            evaluated = at % 4 == 0
            accuracy = goal - (goal - 0.1) * math.exp(-at / 6) + 0.002 * noise.standard_normal()
            work = [0.0] * 4 if at == 0 else [0.02 * operations / 53e9 * (1 + 0.1 * worker) for worker in range(4)]
            links = [0.0] * 4 if at == 0 else [traffic / 1e8] * 4
            clock += max(work) + max(links)
            writer.append({
                "round": at, "samples": at * 2560, "train_loss": 2.3 * math.exp(-at / 8) + 0.3 if at else None,
                "test_accuracy": accuracy if evaluated else None,
                "test_loss": -math.log(accuracy) + 0.2 if evaluated else None,
                "sent_bytes": [traffic if at else 0] * 4, "received_bytes": [traffic if at else 0] * 4,
                "hops": [6 * (at > 0)] * 4, "compute_seconds": work, "communicate_seconds": links, "seconds": clock,
                "lr": 0.1,
            })  # fmt: skip
        if status is None:  # killed: no summary
            writer.close()
            return writer.path
        writer.finish({
            "test_accuracy": accuracy, "test_loss": -math.log(accuracy) + 0.2, "rounds": rounds,
            "samples": rounds * 2560, "seconds": clock,
            "model_parameters": 165_000 if strategy == "narrow" else 669_706, "worker_parameters": [parameters] * 4,
            "sent_bytes": [traffic * rounds] * 4, "received_bytes": [traffic * rounds] * 4,
            "worker_memory_bytes": [memory] * 4, "measured_peak_bytes": [1.4 * memory] * 4 if seed == 0 else None,
            "flops_per_worker": operations, "eval_scale": 0.25, "capacities": capacities,
        }, status=status)  # fmt: skip
        return writer.path

    def analysis(self, name: str, bias: float = 0.12, rounds: int = 60, diverging: bool = False, **config: Any) -> Path:
        flags = {"problem": "gaussian", "workers": 4, "dim": 24, "sketch": "permutation", "scale": None,
                 "stepsize": 0.01, "rounds": rounds, "seeds": 64, "seed": 0, **config}  # fmt: skip
        initial = 37.5
        with RunWriter(self.root / name, "analyze", flags, ["isthmus", "analyze", "--out", name]) as writer:
            for at in range(rounds + 1):
                falling = math.exp(0.5 * at) if diverging else bias + (1 - bias) * math.exp(-at / 4)
                gap = initial * falling
                writer.append({
                    "round": at, "mean_gap": 0.97 * gap, "gap": gap, "simulated": gap * (1 + 0.02 * math.sin(at)),
                    "low": gap * 0.9, "high": gap * 1.1, "distance": 5 * math.exp(8 * at if diverging else -at),
                })  # fmt: skip
            writer.finish({
                "initial_gap": initial, "optimal_value": -3.2, "fixed_point_gap": bias * initial,
                "fixed_point_relative_gap": bias, "final_simulated_gap": gap,
                "constants": [{"name": "λmax(L̄)", "value": 12.3456789, "meaning": "largest curvature"},
                              {"name": "θ", "value": None, "meaning": "smallest constant of Theorem 1"}],
                "verdicts": [{"statement": "Theorem 1 applies", "holds": False,
                              "verdict": "no, W is indefinite: smallest eigenvalue -1.72", "number": -1.72},
                             {"statement": "the mean converges", "holds": True, "verdict": "yes", "number": 0.93},
                             {"statement": "Theorem 2", "holds": None, "verdict": "needs b = 0", "number": None}],
                "diverged_at": 40 if diverging else None,
            }, status="diverged" if diverging else "finished")  # fmt: skip
        return writer.path

    def figure(self, name: str, rows: list[dict[str, Any]] | None = None, **config: Any) -> Path:
        flags = {
            "figure": "bias", "title": "Bias against workers", "caption": "More workers, more bias.",
            "panels": [{"name": "left", "title": "n", "x_label": "workers", "y_label": "relative bias",
                        "x_scale": "linear", "y_scale": "linear"},
                       {"name": "right", "title": "noise", "x_label": "round", "y_label": "gap",
                        "x_scale": "linear", "y_scale": "log"}], **config,
        }  # fmt: skip
        default = [
            {"panel": "left", "series": readout, "x": n, "y": height * (1 - 1 / n), "style": "markers"}
            for readout, height in (("y", 0.2), ("y/n", 0.9))
            for n in (2, 3, 4, 6, 12)
        ] + [
            {"panel": "right", "series": "y", "x": k, "y": 10.0**-k - 1e-18, "low": -1.0, "style": "dashed"}
            for k in range(25)
        ]
        with RunWriter(self.root / name, "figure", flags, ["isthmus", "analyze", "--figure", "bias"]) as writer:
            for row in default if rows is None else rows:
                writer.append(row)
        return writer.path

    def everything(self) -> list[Path]:
        """The main job and more: strategies over seeds, variants, a killed run, two analyses, a figure."""
        return [
            *(self.training(f"{strategy}-{seed}", strategy, seed=seed) for strategy in COSTS for seed in range(3)),
            *(self.training(f"shaped-{seed}", line=Line.of("10mbit", "40ms"), seed=seed) for seed in range(2)),
            self.training("ist-core", core=0.25),
            self.training("ist-uniform", law="uniform"),
            self.training("killed", "local-sgd", status=None, rounds=12, lr=0.3),
            self.analysis("gaussian"),
            self.analysis("diabetes", bias=0.004, problem="data", data="diabetes"),
            self.analysis("diverging", diverging=True, stepsize=1.0),
            self.figure("bias"),
        ]


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "runs")


@pytest.fixture(scope="session")
def full_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything on it."""
    from isthmus.report import write_report

    root = tmp_path_factory.mktemp("report")
    Runs(root / "runs").everything()
    return write_report([root / "runs"], root / "out")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A real headless browser without a network."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium or google-chrome on this machine")
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
             "--disable-sync"]  # fmt: skip
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Open a page offline; afterwards it must have been silent and must have asked for nothing but itself."""
    contexts, complaints, requests = [], [], []

    def visit(path: Path, width: int = 1280, height: int = 900) -> Any:
        context = chromium.new_context(viewport={"width": width, "height": height}, offline=True)
        contexts.append(context)
        context.on("request", lambda request: requests.append(request.url))
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.goto(path.resolve().as_uri())
        wait_until(page, "document.querySelector('.js-plotly-plot') || !document.querySelector('.chart')")
        page.evaluate("document.querySelectorAll('details.more').forEach(folded => { folded.open = true; })")
        wait_until(page, "document.querySelectorAll('.chart:not(.js-plotly-plot)').length === 0")
        return page

    yield visit
    for context in contexts:
        context.close()
    outside = [url for url in requests if not url.startswith(("file://", "data:", "blob:"))]
    pages = [url for url in requests if url.startswith("file://")]
    assert not outside, outside
    assert len(pages) == len(contexts), pages
    assert not complaints, complaints
