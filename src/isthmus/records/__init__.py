"""A run's folder: what was asked, where it ran, what happened row by row, and how it ended.

::

    RUN/
      config.json       the resolved configuration and the exact command that reproduces the run; if it was made from
                        Python, null instead of the command, and the name of the script (null in a notebook); the
                        commands by which it went on
      environment.json  versions, platform, commit
      rows.jsonl        one JSON object a line, appended while the run goes on; each with a running checksum
      events.jsonl      the same of what happens beside the rounds: workers lost, late, back; checkpoints
      checkpoints/      of a training: the last few places to go on from (isthmus.trainer.checkpoint)
      model.safetensors of a training: the network to use
      summary.json      {"status": "finished" | "diverged" | "interrupted" | "failed", ...}
      manifest.json     size and SHA-256 of all of these but checkpoints, which have their own; written last
      lock              while a process writes the folder

Plain JSON throughout, readable by pandas (``pd.read_json("rows.jsonl", lines=True)``); never a pickle. A run that was
killed has no ``summary.json``; its rows so far are intact. Not-a-number and infinities are written as null.
"""

from isthmus.records.check import Finding, check_run
from isthmus.records.environment import environment
from isthmus.records.journal import spare_path
from isthmus.records.lock import is_locked
from isthmus.records.place import find_runs, fresh_folder
from isthmus.records.plain import to_json
from isthmus.records.reader import FORMAT, Run, is_run, read_run
from isthmus.records.writer import RunWriter

__all__ = [
    "FORMAT",
    "Finding",
    "Run",
    "RunWriter",
    "check_run",
    "environment",
    "find_runs",
    "fresh_folder",
    "is_locked",
    "is_run",
    "read_run",
    "spare_path",
    "to_json",
]
