"""A run's folder: complete when it ends, intact when it does not, readable by others."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cases.records import without_end
from isthmus.errors import RecordError
from isthmus.records import RunWriter, check_run, fresh_folder, read_run, to_json


def write(path: Path, **options: object) -> None:
    config = {"workers": 4, "widths": (32, 32)}
    with RunWriter(path, "train", config, ["isthmus", "train", "--data", "a b"], **options) as run:
        for round in range(3):
            run.append({"round": round, "loss": np.float32(0.5), "bytes": np.arange(2), "bad": float("nan")})
        run.finish({"accuracy": np.float64(0.5)})


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write(tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert (run.kind, run.status, run.command) == ("train", "finished", "isthmus train --data 'a b'")
    assert run.config == {"workers": 4, "widths": [32, 32]}
    assert run.rows[2] == {"round": 2, "loss": 0.5, "bytes": [0, 1], "bad": None}
    assert run.summary["accuracy"] == 0.5
    assert {"python", "numpy", "isthmus"} <= set(run.environment["versions"])
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "config.json", "environment.json", "manifest.json", "rows.jsonl", "summary.json",
    ]  # fmt: skip


MAKE_A_RUN = (
    "import sys\n"
    "from isthmus.records import RunWriter\n"
    "with RunWriter(sys.argv[1], 'train', {}) as run: run.append({'round': 0})\n"
)


def test_a_run_made_by_a_script_names_the_script_and_no_command(tmp_path: Path) -> None:
    script = tmp_path / "my_sweep.py"
    script.write_text(MAKE_A_RUN)
    subprocess.run([sys.executable, script, tmp_path / "run"], check=True)
    run = read_run(tmp_path / "run")
    assert (run.command, run.script) == (None, "my_sweep.py")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["command"] is None


def test_a_run_made_in_an_interpreter_has_neither_script_nor_command(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", MAKE_A_RUN, tmp_path / "run"], check=True)
    run = read_run(tmp_path / "run")
    assert (run.command, run.script) == (None, None)


def test_a_run_written_before_scripts_were_recorded_is_still_read(tmp_path: Path) -> None:
    write(tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    assert set(config) == {"format", "kind", "command", "config"}  # as it was then, where there is a command
    assert read_run(tmp_path / "run").script is None


def write_as_before_checksums(path: Path) -> None:
    """A run of format 1, as the version before checksums wrote it; its last line is cut short."""
    path.mkdir()
    said = {"format": 1, "kind": "train", "command": "isthmus train", "config": {"workers": 2}}
    (path / "config.json").write_text(json.dumps(said))
    (path / "environment.json").write_text("{}")
    (path / "rows.jsonl").write_text('{"round": 0}\n{"round": 1, "checksum": "own"}\n{"round": 2')


def test_a_run_from_before_checksums_is_read_and_gets_them_when_it_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run"
    write_as_before_checksums(path)
    assert read_run(path).rows == [{"round": 0}, {"round": 1, "checksum": "own"}]
    found = check_run(path)
    assert (found.faults, found.status) == ((), "unfinished")
    assert "no checksums" in found.notes[0]
    with RunWriter.again(path, {"workers": 3}, ["isthmus", "train", "--resume"]) as writer:
        assert writer.rewind(0) == [{"round": 0}]
        writer.append({"round": 1})
    assert read_run(path).rows == [{"round": 0}, {"round": 1}]
    assert "no checksums" not in str(check_run(path))
    (path / "rows.jsonl").write_text((path / "rows.jsonl").read_text().replace('"round": 0', '"round": 7'))
    assert check_run(path).faults


def test_pandas_reads_the_rows(tmp_path: Path) -> None:
    write(tmp_path / "run")
    frame = pd.read_json(tmp_path / "run" / "rows.jsonl", lines=True)
    assert frame["round"].tolist() == [0, 1, 2]
    assert frame["bad"].isna().all()


def test_every_file_is_strict_json(tmp_path: Path) -> None:
    write(tmp_path / "run")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for path in (tmp_path / "run").glob("*.json*"):
        for line in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            json.loads(line, parse_constant=refuse)


def test_an_earlier_run_is_kept_unless_replaced(tmp_path: Path) -> None:
    write(tmp_path / "run")
    with pytest.raises(RecordError, match="already holds a run: choose another folder, or add --replace to replace it"):
        write(tmp_path / "run")
    assert len(read_run(tmp_path / "run").rows) == 3
    write(tmp_path / "run", replace=True)


def test_what_is_not_a_run_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("ten years")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RecordError, match="is not a run of isthmus"):
        write(tmp_path, replace=True)
    assert (tmp_path / "thesis.tex").read_text() == "ten years"


def test_a_file_in_the_way_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot write"):
        write(tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("broken"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_a_failure_is_recorded(tmp_path: Path, error: BaseException, status: str) -> None:
    def fail() -> None:
        with RunWriter(tmp_path / "run", "train", {}) as run:
            run.append({"round": 0})
            raise error

    with pytest.raises(type(error)):
        fail()
    assert read_run(tmp_path / "run").status == status
    assert len(read_run(tmp_path / "run").rows) == 1


def test_a_killed_run_keeps_its_rows(tmp_path: Path) -> None:
    """A real process, killed with SIGKILL while it writes."""
    code = (
        "import itertools, sys\n"
        "from isthmus.records import RunWriter\n"
        "run = RunWriter(sys.argv[1], 'train', {})\n"
        "for round in itertools.count():\n"
        "    run.append({'round': round, 'filling': 'x' * 5000})\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")])
    rows = tmp_path / "run" / "rows.jsonl"
    deadline = time.monotonic() + 60
    while not (rows.exists() and rows.stat().st_size > 100_000):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    run = read_run(tmp_path / "run")
    assert run.status == "unfinished"
    assert [row["round"] for row in run.rows] == list(range(len(run.rows)))
    assert len(run.rows) >= 19


def test_a_cut_last_row_is_left_out_of_a_run_that_was_killed_and_named_if_it_has_ended(tmp_path: Path) -> None:
    write(tmp_path / "run")
    rows = tmp_path / "run" / "rows.jsonl"
    whole = rows.read_text()
    rows.write_text(whole[:-10])
    with pytest.raises(RecordError, match=r"rows\.jsonl was changed: it has .* bytes.*; its last line is cut short"):
        read_run(tmp_path / "run")
    without_end(tmp_path / "run")
    assert len(read_run(tmp_path / "run").rows) == 2
    rows.write_text(whole.replace('{"round": 1', "{round: 1"))
    with pytest.raises(RecordError, match=r"rows\.jsonl, line 2: not JSON"):
        read_run(tmp_path / "run")


def test_what_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="is not a run of isthmus"):
        read_run(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RecordError, match="is not JSON"):
        read_run(tmp_path)
    (tmp_path / "config.json").write_text('{"format": 999}')
    with pytest.raises(RecordError, match="was not written by isthmus, or by a newer one"):
        read_run(tmp_path)


def test_only_plain_data_is_written() -> None:
    with pytest.raises(TypeError, match="cannot write object"):
        to_json({"a": object()})


def test_a_fresh_folder_is_never_one_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for expected in ("runs/a", "runs/a-2", "runs/a-3"):
        folder = fresh_folder("a")
        assert folder == Path(expected)
        folder.mkdir(parents=True)
