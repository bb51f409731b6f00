"""Where a run was made: versions, platform, commit, script."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from isthmus.line import line_here

_VERSIONS = ("isthmus", "numpy", "scipy", "scikit-learn", "torch")


def environment() -> dict[str, Any]:
    """Return versions, platform, commit, and the line a run is made over if it is known, for ``environment.json``."""
    versions = {"python": platform.python_version()}
    for name in _VERSIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "commit": _commit(),
        "line": None if (line := line_here()) is None else line.record(),
    }


def script() -> str | None:
    """Return the file name of the script that runs, without its folder: a record is shown to others."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(path).name if path else None


def _commit() -> str | None:
    git = shutil.which("git")
    here = Path(__file__).resolve().parent
    if git is None:
        return None
    tracked = subprocess.run([git, "-C", here, "ls-files", "--error-unmatch", __file__], capture_output=True)
    if tracked.returncode != 0:
        return None
    done = subprocess.run([git, "-C", here, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip() or None
