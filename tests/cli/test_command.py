"""The command as a person meets it: help, bad input in one line, exit codes."""

import doctest
import enum
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import tyro

import isthmus
from isthmus.cli import COMMANDS, main, refuse, status
from isthmus.cli.refuse import refusing_in_one_line
from isthmus.errors import InvalidInput
from isthmus.records import read_run


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
        ("train --workers 9 --widths 8 8", "the widest hidden layer has 8 units, too few for 9 workers"),
        ("train --data digitz", "did you mean 'digits'?"),
        ("train --data idx:/no/such/folder", "/no/such/folder: no such folder"),
        ("train --strategy iste", "did you mean 'ist'?"),
        ("report /no/such/run", "/no/such/run"),
    ],
)
def test_bad_input_is_one_line(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(capsys, *arguments.split())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("train --worker 2", "unknown flag `--worker`; did you mean `--workers`?"),
        ("train --zzzz", "unknown flag `--zzzz`"),
        ("train -w 2", "unknown flag `-w`"),
        ("train --config x.toml", "unknown flag `--config`"),
        ("report --runs x", "unknown flag `--runs`"),
        ("train --workers two", "`--workers` must be an integer, got 'two'"),
        ("train --workers=two", "`--workers` must be an integer, got 'two'"),
        ("train --workers", "`--workers` must be an integer, got no value"),
        ("train --workers --rounds 3", "`--workers` must be an integer, got no value"),
        ("train --core much", "`--core` must be a number, got 'much'"),
        ("train --lr high", "`--lr` must be a number, got 'high'"),
        ("train --widths 3 x", "`--widths` must be integers, got '3 x'"),
        ("compare --values 1 b", "`--values` must be numbers, got '1 b'"),
        ("train --out", "`--out` must be a path, got no value"),
        ("train --keep-state maybe", "`--keep-state` must be one of True, False, got 'maybe'"),
        ("train --json yes", "`--json` takes no value, got 'yes'"),
        ("report x --json=yes", "`--json` takes no value, got 'yes'"),
        ("train stray", "unexpected argument 'stray'"),
        ("train --workers 1 2", "unexpected argument '2' after `--workers 1`"),
        ("train -- --workers", "unexpected argument '--workers'"),
        ("inspect a:b c:d", "unexpected argument 'c:d'"),
        ("train --seed 1 --rounds 2 --seed 3", "`--seed` must be given once, got it 2 times"),
        ("train --local_steps 3 --local-steps=4", "`--local-steps` must be given once, got it 2 times"),
        ("demo --replace --replace", "`--replace` must be given once, got it 2 times"),
    ],
)
def test_what_cannot_be_parsed_is_one_line(arguments: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, *arguments.split()) == f"isthmus: {line}"


def test_examples_of_the_parsers_words() -> None:
    failed, tried = doctest.testmod(refuse)
    assert (failed, tried > 0) == (0, True)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_refuses_an_unknown_flag_in_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, name, "--nonsense", "1") == "isthmus: unknown flag `--nonsense`"


class _Kind(enum.Enum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True)
class _Inner:
    depth: int = 1


@dataclass(frozen=True)
class _Options:
    """Types of flags that no command has yet, or that it may get."""

    choice: Literal["good", "better"] = "good"
    kind: _Kind = _Kind.RED
    pair: tuple[int, float] = (1, 2.0)
    mixed: float | Literal["auto"] = "auto"
    inner: _Inner = _Inner()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--choice bettr", "`--choice` must be one of good, better, got 'bettr'; did you mean 'better'?"),
        ("--choice", "`--choice` must be 'good', 'better', got no value"),
        ("--kind x", "`--kind` must be one of RED, BLUE, got 'x'"),
        ("--pair 1", "`--pair` must be 2 values (an integer, a number), got '1'"),
        ("--pair 1 x", "`--pair` must be 2 values (an integer, a number), got '1 x'"),
        ("--mixed x", "`--mixed` must be a number or 'auto', got 'x'"),
        ("--depth x", "`--depth` must be an integer, got 'x'"),
        ("--dept 3", "unknown flag `--dept`; did you mean `--depth`?"),
    ],
)
def test_every_type_of_flag_is_refused_in_one_line(arguments: str, line: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{re.escape(line)}$"), refusing_in_one_line(arguments.split(), _Options):
        tyro.cli(_Options, args=arguments.split(), config=(tyro.conf.OmitArgPrefixes,))


@pytest.mark.parametrize("arguments", ["--worker 2", "--workers two", "--workers", "stray", "--keep-state maybe"])
def test_without_the_parsers_hook_its_own_words_are_one_line(
    arguments: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hook is not part of tyro's stable interface: a version without it."""
    monkeypatch.setitem(sys.modules, "tyro._errors", None)
    line = refused(capsys, "train", *arguments.split())
    assert arguments.split()[-1].strip("-") in line
    assert not set("│╭╰─├") & set(line)


def test_exit_codes_are_said_and_follow_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    damaged = "1 a worker failed, or a record is damaged"
    said = f"exit codes: 0 fine, {damaged}, 2 bad input, 3 a training diverged, 130 interrupted"
    assert said in capsys.readouterr().out
    status.exit_unless_fine("finished")
    for ended, code in (("failed", 1), ("diverged", 3), ("interrupted", 130)):
        with pytest.raises(SystemExit) as stop:
            status.exit_unless_fine(ended)
        assert stop.value.code == code


def test_a_training_that_diverged_says_so_and_exits_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    flags = ["--lr", "1e30", "--rounds", "3", "--workers", "2", "--widths", "8", "--norm", "none"]
    with pytest.raises(SystemExit) as stop:
        main(["train", *flags, "--executor", "serial", "--json", "--out", str(out)])
    assert stop.value.code == 3
    assert json.loads(capsys.readouterr().out)["status"] == "diverged"
    run = read_run(out)
    assert run.status == "diverged"
    assert run.command == f"isthmus train {' '.join(flags)} --executor serial --json --out {out}"


def test_an_out_that_exists_names_the_flag_that_replaces_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["analyze", "--dim", "4", "--rounds", "2", "--seeds", "2", "--out", str(tmp_path / "run")]
    main(arguments)
    capsys.readouterr()
    assert "add --replace to replace it" in refused(capsys, *arguments)
    main([*arguments, "--replace"])


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
