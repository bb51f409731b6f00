"""The command as a person meets it: help, bad input in one line, exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import isthmus
from isthmus.cli import COMMANDS, main


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line a refused command prints."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    line, end, rest = shown.err.partition("\n")
    assert (end, rest) == ("\n", "")
    assert line.startswith("isthmus: ")
    return line


def test_without_a_command_all_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    shown = capsys.readouterr().out
    assert all(f"  {name}" in shown for name in COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"usage: isthmus {name}" in capsys.readouterr().out


def test_help_loads_no_torch() -> None:
    """Asking what the trainer can do must not take the two seconds that importing torch takes."""
    code = (
        "import sys\n"
        "from isthmus.cli import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("start", [["isthmus"], [sys.executable, "-m", "isthmus"]])
def test_version_by_both_names(start: list[str]) -> None:
    folder = str(Path(sys.executable).parent)
    start = [f"{folder}/isthmus"] if start == ["isthmus"] else start
    done = subprocess.run([*start, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"isthmus {isthmus.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("analize", "`command` must be one of"),
        ("analize", "did you mean 'analyze'?"),
        ("analyze --workers 0", "`workers` must be at least 1, got 0"),
        ("analyze --problem data --data diabets", "did you mean 'diabetes'?"),
        ("analyze --scale wide", "`scale` must be n, sqrt or a number"),
        ("analyze --rounds -1", "`rounds` must be"),
        ("analyze --stepsize -1", "`stepsize` must be greater than 0"),
        ("train --workers 0", "`workers` must be at least 1, got 0"),
        ("train --workers 9 --widths 8 8", "`workers` must be at most the 8 units"),
        ("train --data digitz", "did you mean 'digits'?"),
        ("train --data idx:/no/such/folder", "/no/such/folder: no such folder"),
        ("train --strategy iste", "did you mean 'ist'?"),
        ("report /no/such/run", "/no/such/run"),
    ],
)
def test_bad_input_is_one_line(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(capsys, *arguments.split())


def test_a_malformed_libsvm_file_is_named_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "data.txt"
    path.write_text("1 1:2\n-1 1:2 nonsense\n")
    line = refused(capsys, "analyze", "--problem", "data", "--data", f"libsvm:{path}")
    assert f"{path}, line 2" in line


def test_not_a_number_in_the_data_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "data.txt"
    path.write_text("1 1:2\n-1 1:nan\n")
    line = refused(capsys, "analyze", "--problem", "data", "--data", f"libsvm:{path}")
    assert f"{path}, line 2: a value is not a finite number" in line


def test_a_run_folder_that_is_taken_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    out = str(tmp_path)
    assert "is not a run of isthmus" in refused(capsys, "analyze", "--dim", "4", "--rounds", "2", "--out", out)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_step_that_diverges_is_a_result(tmp_path: Path) -> None:
    out = tmp_path / "run"
    code = [sys.executable, "-m", "isthmus", "analyze", "--dim", "6", "--stepsize", "1e6", "--out", str(out)]
    done = subprocess.run(code, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "diverged at round" in done.stdout
    assert '"status": "diverged"' in (out / "summary.json").read_text()
    assert done.stderr == ""


def test_output_into_a_closed_pipe_is_silent() -> None:
    """`isthmus analyze | head -1` must not end in a traceback."""
    command = f"{sys.executable} -m isthmus analyze --dim 8 --rounds 5 --json | head -c 10"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""


def test_without_out_every_run_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        main(["analyze", "--dim", "4", "--rounds", "2", "--seeds", "2"])
    main(["analyze", "--problem", "data", "--data", "diabetes", "--rounds", "2", "--seeds", "2", "--json"])
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names == ["analyze-diabetes", "analyze-gaussian", "analyze-gaussian-2"]


def test_a_flag_comes_before_the_file_even_at_its_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("dim = 6\nworkers = 3\nrounds = 2\n")
    out = ["--seeds", "2", "--json", "--config", str(settings), "--out", str(tmp_path / "run")]
    main(["analyze", "--workers", "4", *out])  # 4 is what --workers is without being given
    config = json.loads(capsys.readouterr().out)["config"]
    assert (config["dim"], config["workers"]) == (6, 4)
