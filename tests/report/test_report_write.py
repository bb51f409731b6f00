"""Real files: one page and PNG figures, whole or not at all, and the command."""

import html
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest

from cases.records import rewrite
from isthmus.cli import main
from isthmus.errors import InvalidInput, RecordError
from isthmus.records import RunWriter, read_run
from isthmus.report import draw, write_report


class Page(HTMLParser):
    """Text outside scripts and styles, ids, and every element that could load something."""

    VOID = ("meta", "link", "img", "br", "input", "hr")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.ids: list[str] = []
        self.loads: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "srcset", "data", "action") or (name == "href" and not (value or "").startswith("#")):
                self.loads.append((tag, value or ""))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)


def test_the_page_is_one_well_formed_file_that_loads_nothing(full_report: Path) -> None:
    page = Page(full_report)
    assert page.open == []
    assert {(tag, value[:22]) for tag, value in page.loads} == {("img", "data:image/png;base64,")}
    assert len(set(page.ids)) == len(page.ids)
    assert "default-src 'none'" in full_report.read_text()[:2000]
    links = re.findall(r'href="#([^"]+)"', full_report.read_text()[:20000])
    assert set(links) <= set(page.ids)
    assert full_report.stat().st_size < 2e6


def test_the_page_says_how_to_repeat_each_run_and_flags_those_that_did_not_finish(full_report: Path) -> None:
    page = Page(full_report)
    for folder in sorted((full_report.parent.parent / "runs").iterdir()):
        run = read_run(folder)
        assert run.command in page.text
        assert run.environment["versions"]["numpy"] in page.text
        if run.status != "finished":
            assert re.search(rf"did not finish as planned.*{run.path.name} \(", page.text)
    assert "killed (no end: still going on, or killed)" in page.text
    assert "diverging (diverged)" in page.text


def test_every_figure_is_also_a_png(full_report: Path) -> None:
    drawn = sorted(path.name for path in (full_report.parent / "figures").iterdir())
    titles = re.findall(r"<figure><h3>", full_report.read_text())
    assert len(drawn) == len(titles)
    assert "training-digits-accuracy.png" in drawn
    for path in (full_report.parent / "figures").iterdir():
        pixels = matplotlib.image.imread(path)[..., :3]
        assert min(pixels.shape[:2]) > 300
        assert pixels.min() < 0.4  # ink
        assert pixels[0, 0].min() == 1.0  # on white
        assert path.stat().st_size < 250_000


def test_the_same_runs_give_the_same_bytes(runs: Any, tmp_path: Path) -> None:
    paths = [runs.figure("a"), runs.analysis("b")]
    first, second = write_report(paths, tmp_path / "one"), write_report(paths, tmp_path / "two")
    assert first.read_bytes() == second.read_bytes()
    for path in (tmp_path / "one" / "figures").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / "figures" / path.name).read_bytes()


def test_a_later_report_replaces_the_earlier_and_leaves_other_files_alone(runs: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_report([runs.figure("a"), runs.analysis("b")], out)
    (out / "notes.txt").write_text("mine")
    page = write_report([runs.root / "b"], out)
    assert "Bias against workers" not in Page(page).text
    assert all(path.name.startswith("analysis") for path in (out / "figures").iterdir())
    assert sorted(path.name for path in out.iterdir()) == ["figures", "index.html", "notes.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "runs"]  # no scratch folder stays


HOSTILE = '</script><script>alert(1)</script><img src=x onerror=alert(2)> & "quoted" $\\nonsense$ %{x} _'


def test_a_run_made_from_python_says_that_no_command_repeats_it(runs: Any, tmp_path: Path) -> None:
    """The script's name stands there as text, and nothing stands in the place of a command."""
    with RunWriter(runs.root / "own", "claims", {}) as writer:
        writer.append({"round": 0})
    for script, said in (("sweep.py", "by sweep.py"), (HOSTILE, f"by {HOSTILE}"), (None, "in a notebook")):
        rewrite(writer.path, "config.json", script=script)
        page = write_report([writer.path], tmp_path / "out")
        assert f"Made from Python {said}" in Page(page).text
        assert "cannot be repeated by one command" in Page(page).text
        assert "<pre>" not in page.read_text()[page.read_text().rindex('<section id="runs">') :]


def test_hostile_words_are_shown_as_words(runs: Any, tmp_path: Path) -> None:
    paths = [
        runs.training("a", data=HOSTILE, law=HOSTILE, activation="<b>relu</b>"),
        runs.training("b", HOSTILE, data=HOSTILE),
        runs.analysis("c", problem=HOSTILE),
        runs.figure("d", title=HOSTILE, caption=HOSTILE, figure=HOSTILE),
    ]
    with RunWriter(runs.root / "e", HOSTILE, {HOSTILE: HOSTILE}, [HOSTILE]) as writer:
        writer.finish({HOSTILE: HOSTILE, "error": HOSTILE}, status="failed")
    page = write_report([*paths, writer.path], tmp_path / "out")
    source = page.read_text()
    assert "<script>alert" not in source
    assert source.count("<img") == len(Page(page).loads) == 1  # the first picture of the training
    assert {value[:22] for _, value in Page(page).loads} == {"data:image/png;base64,"}
    assert html.escape(HOSTILE) in source
    assert Page(page).open == []
    assert all(path.parent == tmp_path / "out" / "figures" for path in (tmp_path / "out").rglob("*.png"))


def test_runs_without_rows_numbers_or_a_summary_still_give_a_page(runs: Any, tmp_path: Path) -> None:
    for kind in ("train", "analyze", "figure", "claims"):
        RunWriter(runs.root / f"{kind}-empty", kind, {}).close()
        with RunWriter(runs.root / f"{kind}-null", kind, {"data": None, "strategy": None}) as writer:
            writer.append({"round": None, "test_accuracy": None, "gap": None, "sent_bytes": None, "panel": None})
            writer.append({})
    page = Page(write_report([runs.root], tmp_path / "out"))
    assert "4 of 8 runs did not finish" in page.text
    assert "This run has no rows" in page.text


def test_a_folder_that_holds_runs_stands_for_them(runs: Any, tmp_path: Path) -> None:
    runs.figure("deep/a")
    runs.figure("b")
    page = Page(write_report([runs.root, runs.root / "b"], tmp_path / "out"))
    assert page.text.count("isthmus analyze --figure bias") == 2


def test_the_figures_of_a_report_in_another_format(runs: Any, tmp_path: Path) -> None:
    write_report([runs.figure("f")], tmp_path / "out", "svg")
    assert [path.suffix for path in (tmp_path / "out" / "figures").iterdir()] == [".svg"]
    with pytest.raises(InvalidInput, match="`format` must be one of png, pdf, svg, got 'jpg'"):
        write_report([runs.root / "f"], tmp_path / "out", "jpg")


def test_png_figures_of_one_run(runs: Any, tmp_path: Path) -> None:
    drawn = draw(read_run(runs.figure("f")), tmp_path / "gallery")
    assert drawn == [tmp_path / "gallery" / "bias.png"]
    assert matplotlib.image.imread(drawn[0]).shape[1] > 900  # two panels side by side
    assert drawn[0].stat().st_size < 100_000
    assert {path.stem for path in draw(read_run(runs.analysis("a")), tmp_path)} == {"gap", "distance"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "config.json").write_text("{"), "config.json was changed: it has 1 bytes"),
        (lambda run: rewrite(run, "config.json", kind=[]), "not written by"),
        (lambda run: (run / "environment.json").unlink(), "cannot read environment.json"),
        (lambda run: (run / "summary.json").write_bytes(b"\xff\xfe"), "summary.json was changed: it has 2 bytes"),
        (lambda run: (run / "rows.jsonl").write_text('{"round": 0}\nnonsense\n{"round": 2}\n'), "line 2: not JSON"),
        (lambda run: (run / "rows.jsonl").write_text("[1]\n"), "line 1: must hold a JSON object"),
        (lambda run: (run / "rows.jsonl").write_bytes(b"\xff\n"), "is not text"),
        (lambda run: (run / "rows.jsonl").unlink(), "cannot read"),
    ],
)  # fmt: skip
def test_a_damaged_run_is_left_out_with_one_line_and_where_there_is_no_other_the_earlier_report_stays(
    runs: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, spoil: Any,
    message: str,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    before = write_report([runs.analysis("good")], out).read_bytes()
    bad = runs.analysis("bad")
    spoil(bad)
    main(["report", str(runs.root / "good"), str(bad), "--out", str(tmp_path / "new")])
    (line,) = caplog.messages
    assert line.startswith(f"isthmus: left out of the report: {bad}")
    assert message in line
    said = line.removeprefix("isthmus: left out of the report: ")
    assert f"Left out: {said}." in Page(tmp_path / "new/index.html").text
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(["report", str(bad), "--out", str(out)])
    printed = capsys.readouterr()
    assert caught.value.code == 2
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert str(bad) in printed.err
    assert (out / "index.html").read_bytes() == before


def test_what_cannot_be_written_or_found_is_said(runs: Any, tmp_path: Path) -> None:
    run = runs.analysis("a")
    with pytest.raises(InvalidInput, match="no runs given"):
        write_report([], tmp_path / "out")
    with pytest.raises(RecordError, match=r"nowhere is not a run of isthmus and holds none"):
        write_report([tmp_path / "nowhere"], tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="is a file"):
        write_report([run], tmp_path / "file")
    with pytest.raises(RecordError, match="cannot write the report"):
        write_report([run], tmp_path / "file" / "below")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("<h1>my site</h1>")
    with pytest.raises(RecordError, match="was not written by isthmus"):
        write_report([run], tmp_path / "site")
    assert (tmp_path / "site" / "index.html").read_text() == "<h1>my site</h1>"
    assert not (tmp_path / "out").exists()


def test_the_command_prints_where_the_page_is_and_json_for_machines(runs: Any, tmp_path: Path) -> None:
    """As a person calls it, in a process of its own that never loads torch."""
    run, out = runs.analysis("a", diverging=True), tmp_path / "out"
    code = "import sys; from isthmus.cli import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"COLUMNS": "200"}
        return subprocess.run([sys.executable, "-c", code, "report", *arguments], capture_output=True, text=True,
                              env=environment, cwd=tmp_path)  # fmt: skip

    plain = call(str(run), "--out", str(out))
    assert plain.returncode == 0
    said = [line for line in plain.stderr.splitlines() if not line.startswith("drawing the report: ")]  # if it is slow
    assert said == []
    assert f"page: {out / 'index.html'}" in plain.stdout
    assert "diverged" in plain.stdout
    machine = json.loads(call(str(run), "--out", str(out), "--json").stdout)
    assert machine["runs"] == [{"path": str(run), "kind": "analyze", "status": "diverged"}]
    assert all(Path(path).exists() for path in [machine["page"], *machine["figures"]])
    nothing = call()
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert nothing.stderr.startswith("isthmus: no runs given")
