"""What all workers do together with checkpoints: write one, choose one, read from the last what nobody has any more."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from isthmus.errors import DataError, InvalidInput, WorkerError
from isthmus.trainer.checkpoint.read import Checkpoint, choose
from isthmus.trainer.checkpoint.standing import Standing
from isthmus.trainer.checkpoint.write import write
from isthmus.trainer.rounds.members import Members
from isthmus.trainer.rounds.rounds import Done
from isthmus.trainer.store.rehome import Rows
from isthmus.trainer.wire.exchange import Program
from isthmus.trainer.wire.tell import tell


def writing(members: Members, standing: Standing, wanted: list[Any] | None, extra: Any) -> Program[Done[Path]]:
    """Write a checkpoint; return its own folder.

    Args:
        members: all workers.
        standing: where this one stands.
        wanted: folder, how many to keep, and whether to make the folders above it; None at one's end: as the others.
        extra: of this worker.

    Raises:
        InvalidInput: workers that want different things.
        NotDone: a worker could not write.
    """
    link, device = members.link, members.device
    told = [each for each in (yield from tell(wanted, link, device)) if each is not None]
    if any(each != told[0] for each in told):
        raise InvalidInput("`folder`, `keep` and `parents` must be the same on all workers")
    folder, keep, parents = told[0]
    members.state.round, members.state.reference = None, {}  # one that nobody has made a step in
    path = yield from write(standing.snapshot(extra), Path(folder), keep, link, device, parents)
    return partial(setattr, members, "saved_in", folder), path


def choosing(members: Members, folder: Path) -> Program[Done[tuple[Checkpoint, list[str]]]]:
    """Choose the last checkpoint of a folder that is sound; return it, and what is wrong with those after it.

    Raises:
        DataError: there is none.
    """
    found, wrong = yield from choose(folder, members.link, members.device)
    return partial(setattr, members, "saved_in", str(found.path.parent)), (found, wrong)


def last_rows(members: Members) -> Program[tuple[Rows, str]]:
    """Return what reads rows of the last checkpoint that is sound, and which that is.

    Raises:
        WorkerError: there is none.
    """
    try:
        if members.saved_in is None:
            raise DataError("there is no checkpoint")
        found, wrong = yield from choose(Path(members.saved_in), members.link, members.device)
    except DataError as error:
        raise WorkerError(
            f"the rows of a lost worker are lost with it: the worker that kept their copy is gone too, and {error}"
        ) from error
    return found.rows, found.path.name + (f" ({'; '.join(wrong)})" if wrong else "")
