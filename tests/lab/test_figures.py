"""The gallery: every figure has points in every panel, and what its caption says is so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isthmus.cli import main
from isthmus.lab.figures import FIGURES, Figure
from isthmus.records import read_run

FAST = [name for name in FIGURES if name not in ("heterogeneous", "bias-variance")]


def series(figure: Figure, panel: str, name: str) -> np.ndarray:
    return np.array([row["y"] for row in figure.rows if (row["panel"], row["series"]) == (panel, name)])


@pytest.mark.parametrize("name", FAST)
def test_every_panel_has_points(name: str) -> None:
    figure = FIGURES[name](3)
    assert figure.name == name
    assert len(figure.caption) > 80
    assert {row["panel"] for row in figure.rows} == {panel.name for panel in figure.panels}
    for row in figure.rows:
        assert np.isfinite(row["y"])
        assert row["style"] in ("line", "dashed", "markers")
        assert row.get("low", row["y"]) <= row["y"] <= row.get("high", row["y"])


def test_captions_are_true() -> None:
    remark = FIGURES["remark-1"](0)
    for step in ("gamma = 0.1/b", "gamma = 0.5/b"):
        assert series(remark, "start", step)[1] > 1
        assert series(remark, "whole", step)[-1] < 1
    averaging = FIGURES["algorithm-1"](0)
    slow, fast = (series(averaging, "independent", f"models, step {share}") for share in ("0.02", "0.3"))
    assert slow[-1] > fast[-1] > 1
    assert series(averaging, "independent", "gradients, step 0.02")[-1] < 1
    models, gradients = (series(averaging, "partition", f"{merge}, step 0.3") for merge in ("models", "gradients"))
    np.testing.assert_allclose(models, gradients, rtol=1e-9)
    read = FIGURES["readouts"](0)
    for panel in ("weak", "strong"):
        assert (series(read, panel, "c y") <= np.minimum(series(read, panel, "y"), series(read, panel, "y/n"))).all()
    real = FIGURES["least-squares"](0)
    kept = [series(real, workers, "IST's fixed point")[0] for workers in ("2", "5", "10")]
    assert kept == sorted(kept)


def test_the_command_writes_run_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["analyze", "--figure", "remark-1", "--out", str(tmp_path / "r")])
    run = read_run(tmp_path / "r")
    assert (run.kind, run.config["figure"], run.status) == ("figure", "remark-1", "finished")
    pictures = [Path(line) for line in capsys.readouterr().out.splitlines()[1:]]
    assert pictures
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


@pytest.mark.parametrize(
    ("kind", "start", "letters"),
    [("pdf", b"%PDF", b"/Type0"), ("svg", b"<?xml", b">the first rounds</text>")],
)
def test_pictures_for_a_paper_keep_letters_as_letters(kind: str, start: bytes, letters: bytes, tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        main(["analyze", "--figure", "remark-1", "--format", kind, "--out", str(tmp_path / name)])
        files.append((tmp_path / name / f"remark-1.{kind}").read_bytes())
    assert files[0].startswith(start)
    assert letters in files[0]  # a TrueType font, not the outlines of glyphs
    assert files[0] == files[1]  # no date in it


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--figure", "remark-1", "--format", "jpg", "--out", "x"], "`format` must be one of"),
        (["--figure", "remark-2", "--out", "x"], "did you mean 'remark-1'"),
        (["--figure", "remark-1", "--dim", "7", "--out", "x"], "`dim` has no effect with `figure`"),
        (["--format", "svg", "--out", "x"], "`format` has no effect without `figure`"),
    ],
)
def test_bad_input(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["analyze", *flags])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
