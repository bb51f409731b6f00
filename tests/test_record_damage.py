"""Some 300 damages to run folders: each is named by the check, and none changes what a report shows without a word."""

import json
import os
import random
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cases.records import rewrite, without_end
from isthmus.cli import main
from isthmus.cli.check import check
from isthmus.errors import DataError, RecordError
from isthmus.records import Run, RunWriter, manifest, read_run
from isthmus.records.files import LINES_MOST, hash_file
from isthmus.report.page import render
from isthmus.report.write import read_runs, sections
from isthmus.trainer.checkpoint.manifest import Manifest, ShardFile

JSON = ("config.json", "environment.json", "summary.json", "manifest.json")
LINES = ("rows.jsonl", "events.jsonl")
FILES = (*JSON, *LINES, "model.safetensors", "picture.png")
SHARD = "checkpoints/checkpoint-000004/shard-00000-of-00001.safetensors"
SAVED = ("checkpoints/checkpoint-000004/checkpoint.json", SHARD)
DRAWN = (*JSON, *LINES)  # what a page is made of


def make(path: Path, seed: int) -> Path:
    """A finished run with all that one can have, and numbers of its own."""
    noise = random.Random(seed)
    config = {"strategy": "ist", "workers": 2, "lr": 0.1, "seed": seed}
    with RunWriter(path, "train", config, ["isthmus", "train", "--seed", str(seed)]) as writer:
        for round in range(8):
            writer.append({"round": round, "train_loss": noise.random(), "sent_bytes": [10, 20], "test_accuracy": 0.5})
        for round in (2, 4):
            writer.event("checkpoint", f"checkpoint {round}", round, seconds=noise.random())
        write_tensors(path / "model.safetensors", noise)
        (path / "picture.png").write_bytes(noise.randbytes(200))
        write_checkpoint(path / "checkpoints" / "checkpoint-000004", noise)
        writer.finish({"test_accuracy": noise.random(), "rounds": 7, "sent_bytes": [70, 140]},
                      files=[path / "picture.png"])  # fmt: skip
    return rewrite(path, "environment.json", cores=seed)


def write_tensors(path: Path, noise: random.Random) -> None:
    head = json.dumps({"w": {"dtype": "F32", "shape": [10], "data_offsets": [0, 40]}}).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + noise.randbytes(40))


def write_checkpoint(folder: Path, noise: random.Random) -> None:
    folder.mkdir(parents=True)
    shard = folder / Path(SHARD).name
    write_tensors(shard, noise)
    file = ShardFile(*hash_file(shard), {"w": (0, 10)})
    saved = Manifest(4, {"law": "block"}, {"isthmus": "0"}, {"w": ((10,), "float32")}, [file], [{"steps": 4}])
    (folder / "checkpoint.json").write_text(saved.text())


Damage = Callable[[Path, Path], None]  # of a run's folder, with another run's beside it


def changed(name: str, change: Callable[[bytes], bytes]) -> Damage:
    """Change the bytes of a file; a change that leaves them as they were would be no damage."""

    def damage(run: Path, other: Path) -> None:
        before = (run / name).read_bytes()
        after = change(before)
        assert after != before
        (run / name).write_bytes(after)

    return damage


def flip(share: float, bit: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        at = int(share * (len(data) - 1))
        return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]

    return change


def splice(share: float, drop: int, put: bytes) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        at = int(share * len(data))
        return data[:at] + put + data[at + drop :]

    return change


def lines(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[bytes], bytes]:
    return lambda data: b"".join(change(data.splitlines(keepends=True)))


def edited(name: str, change: Callable[[Any], Any]) -> Damage:
    """Change a number in a JSON file, which stays valid JSON of the same shape."""
    return changed(name, lambda data: (json.dumps(change(json.loads(data)), indent=2) + "\n").encode())


def edited_line(number: int, **changes: Any) -> Callable[[bytes], bytes]:
    def change(all_lines: list[bytes]) -> list[bytes]:
        row = json.loads(all_lines[number]) | changes
        return [*all_lines[:number], (json.dumps(row) + "\n").encode(), *all_lines[number + 1 :]]

    return lines(change)


def placed(name: str, put: Callable[[Path, Path], None]) -> Damage:
    """Put something else in a file's place."""

    def damage(run: Path, other: Path) -> None:
        path = run / name
        path.rename(run.parent / "aside")
        put(path, run.parent / "aside")

    return damage


def huge(path: Path, _: Path) -> None:
    path.touch()
    os.truncate(path, 8 * LINES_MOST)  # without a byte on the disk


def listen(path: Path, _: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket must be short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def copied(name: str) -> Damage:
    def damage(run: Path, other: Path) -> None:
        shutil.copyfile(other / name, run / name)

    return damage


PLACED: dict[str, Callable[[Path, Path], None]] = {
    "gone": lambda path, aside: None,
    "a FIFO": lambda path, aside: os.mkfifo(path),
    "a folder": lambda path, aside: path.mkdir(),
    "a socket": listen,
    "a link to what was there": lambda path, aside: path.symlink_to(aside),
    "a link to a device": lambda path, aside: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path, aside: path.symlink_to(path),
}


def damages() -> Iterator[tuple[str, str, Damage]]:
    """(in words, file, damage)."""
    for name in (*FILES, *SAVED):
        for share, bit in ((0.0, 0), (0.2, 3), (0.4, 1), (0.6, 5), (0.8, 2), (1.0, 4)):
            yield f"a bit flipped at {share}", name, changed(name, flip(share, bit))
        for share in (0.1, 0.5, 0.9):
            yield f"a byte lost at {share}", name, changed(name, splice(share, 1, b""))
            yield f"bytes put in at {share}", name, changed(name, splice(share, 0, b"07"))
        yield "the end cut off", name, changed(name, lambda data: data[:-7])
        yield "half of it", name, changed(name, lambda data: data[: len(data) // 2])
        yield "empty", name, changed(name, lambda data: b"")
        yield "foreign JSON", name, changed(name, lambda data: b'{"hello": [1, 2]}\n')
        yield "zeros", name, changed(name, lambda data: bytes(len(data)))
        yield "a line after it", name, changed(name, lambda data: data + b"{}\n")
        yield "another run's", name, copied(name)
        for words, put in PLACED.items():
            yield words, name, placed(name, put)
    for name in (*JSON, *LINES):
        yield "huge", name, placed(name, huge)
        yield "nested without end", name, changed(name, lambda data: b"[" * 100_000)
    for name in LINES:
        last = 7 if name == "rows.jsonl" else 1
        for at in range(last + 1):
            yield f"line {at} lost", name, changed(name, lines(lambda all, at=at: all[:at] + all[at + 1 :]))
            yield f"line {at} doubled", name, changed(name, lines(lambda all, at=at: all[: at + 1] + all[at:]))
            yield f"round {at} edited", name, changed(name, edited_line(at, round=99))
        yield "two lines swapped", name, changed(name, lines(lambda all: [all[1], all[0], *all[2:]]))
        yield "backwards", name, changed(name, lines(lambda all: all[::-1]))
        yield "without checksums", name, changed(
            name, lines(lambda all: [line.partition(b', "checksum"')[0] + b"}\n" for line in all])
        )
    yield "a checksum copied", "rows.jsonl", changed(
        "rows.jsonl", lines(lambda all: [*all[:3], all[3][:-20] + all[2][-20:], *all[4:]])
    )
    yield "a better accuracy", "summary.json", edited("summary.json", lambda said: said | {"test_accuracy": 0.99})
    yield "another status", "summary.json", edited("summary.json", lambda said: said | {"status": "diverged"})
    yield "another rate", "config.json", edited("config.json", lambda said: said | {"config": {"lr": 1.0}})
    yield "an older format", "config.json", edited("config.json", lambda said: said | {"format": 1})
    yield "another machine", "environment.json", edited("environment.json", lambda said: said | {"cores": 999})
    yield "another run's number", "manifest.json", edited("manifest.json", lambda said: said | {"run": "0" * 32})
    for name in FILES:
        if name != "manifest.json":
            yield f"{name} no longer listed", "manifest.json", edited(
                "manifest.json", lambda said, name=name: said | {"files": {**said["files"], name: None}}
            )


ALL = list(damages())


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("sound")
    return make(root / "one", 1), make(root / "other", 2)


def report_of(run: Path) -> Run | None:
    """What a page would be made of; None where the run is left out."""
    try:
        return read_run(run)
    except RecordError as error:
        said = str(error)
    assert said.count("\n") == 0
    assert str(run) in said
    return None


def shown(run: Run | None) -> Any:
    """All of a run that a page can show, but where it lies."""
    return None if run is None else {name: value for name, value in vars(run).items() if name != "path"}


def test_sound_runs_are_found_sound(two: tuple[Path, Path]) -> None:
    for run in two:
        assert check(run).faults == ()
        assert read_run(run).status == "finished"
        assert len(read_run(run).events) == 2


def test_300_damages_are_named_and_none_changes_a_page_in_silence(two: tuple[Path, Path], tmp_path: Path) -> None:
    sound, other = two
    before = shown(read_run(sound))
    start = time.process_time()
    for number, (words, name, damage) in enumerate(ALL):
        run = tmp_path / f"{number}" / "run"
        shutil.copytree(sound, run)
        damage(run, other)
        found = check(run)
        place = "checkpoints/" if name in SAVED else name
        named = [fault for fault in found.faults if place in fault]
        assert named, f"{name}: {words}: {found}"
        assert not any("\n" in fault for fault in found.faults), f"{name}: {words}: {found}"
        now = shown(report_of(run))
        assert now in (None, before), f"{name}: {words}: the page would change"
        assert now is None or name not in DRAWN, f"{name}: {words}: not left out"
        shutil.rmtree(run.parent)
    assert len(ALL) >= 300
    assert time.process_time() - start < 10.0


def test_of_a_run_that_was_killed_all_but_lost_last_lines_is_found_too(two: tuple[Path, Path], tmp_path: Path) -> None:
    """As nobody can tell a line that was lost at the end from one that was never written."""
    sound, other = (without_end(Path(shutil.copytree(run, tmp_path / run.name))) for run in two)
    before = shown(read_run(sound))
    silent = []
    for number, (words, name, damage) in enumerate(ALL):
        if name not in ("config.json", "environment.json", "manifest.json", *LINES):
            continue
        run = tmp_path / f"{number}" / "run"
        shutil.copytree(sound, run)
        try:
            damage(run, other)
        except (AssertionError, FileNotFoundError):  # a file that is not there any more
            continue
        now = shown(report_of(run))
        if now is None:
            assert any(Path(name).name in fault for fault in check(run).faults), f"{name}: {words}"
        elif now != before:
            silent.append((name, words))
        shutil.rmtree(run.parent)
    assert {name for name, _ in silent} <= set(LINES)
    assert {words for _, words in silent} <= {
        "the end cut off", "half of it", "empty", "line 7 lost", "line 1 lost", "a bit flipped at 1.0", "gone",
    }  # fmt: skip


def test_a_damage_that_no_page_shows_leaves_its_bytes_as_they_were(two: tuple[Path, Path], tmp_path: Path) -> None:
    def page(run: Path) -> str:
        runs, left_out = read_runs([run, two[1]])
        return render("isthmus report", sections(runs), runs, left_out)

    run = Path(shutil.copytree(two[0], tmp_path / two[0].name))
    changed("model.safetensors", flip(0.9, 1))(run, run)
    assert page(run) == page(two[0])
    changed("summary.json", flip(0.9, 1))(run, run)
    assert "Left out: " in page(run)


def test_what_lies_in_a_run_that_it_did_not_write_does_not_count(two: tuple[Path, Path], tmp_path: Path) -> None:
    run = without_end(Path(shutil.copytree(two[0], tmp_path / "run")))
    before = shown(read_run(run))
    shutil.copyfile(two[1] / "summary.json", run / "summary.json")
    assert check(run).faults == ("summary.json is not in manifest.json: the run did not write it",)
    assert shown(read_run(run)) == before


def test_the_command_names_file_and_fault_and_its_code_says_it(
    two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["check", str(two[0])])
    assert capsys.readouterr().out == f"{two[0]}: sound (finished; 1 checkpoints)\n"
    bad = Path(shutil.copytree(two[0], tmp_path / "bad"))
    changed("rows.jsonl", edited_line(3, train_loss=0.0))(bad, bad)
    changed(SHARD, flip(0.9, 1))(bad, bad)
    with pytest.raises(SystemExit) as caught:
        main(["check", str(two[0].parent), str(bad)])
    assert caught.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.startswith(str(bad)) for line in lines] == [False, False, True, True]
    assert "rows.jsonl, line 4: does not follow from the line before it" in lines[2]
    assert "was changed: its SHA-256 is not that of what was written" in lines[3]
    with pytest.raises(SystemExit):
        main(["check", str(bad), "--json"])
    (said,) = json.loads(capsys.readouterr().out)
    assert (said["sound"], said["status"], len(said["faults"])) == (False, "finished", 2)
    for arguments in ([], [str(tmp_path / "nowhere")]):
        with pytest.raises(SystemExit) as caught:
            main(["check", *arguments])
        assert caught.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_manifest_with_a_foreign_place_in_it_is_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    """Sealed as ours are, by somebody who knows how: nothing outside the folder is looked at for it."""
    run = Path(shutil.copytree(two[0], tmp_path / "run"))
    foreign = {"../one/config.json": manifest.Vouched(0, "")}
    (run / "manifest.json").write_text(manifest.Manifest("0" * 32, foreign).text())
    with pytest.raises(RecordError, match=r"manifest\.json is torn or was changed"):
        read_run(run)


def test_a_checkpoints_manifest_may_be_no_fifo(two: tuple[Path, Path], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "checkpoint.json")
    with pytest.raises(DataError, match="it is a FIFO, not a file"):
        Manifest.read(tmp_path)
