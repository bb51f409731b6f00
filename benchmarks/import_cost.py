"""CPU seconds of importing the lab and of ``isthmus claims``, children counted, beside what NumPy and SciPy take alone.

python benchmarks/import_cost.py [--times 5]

Each line is the median and the least of so many fresh processes, which use bytecode that is compiled already (a first
import compiles it) and one thread of linear algebra.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile

RUNS = {
    "python": ["-c", "pass"],
    "numpy, scipy.linalg, scipy.sparse.linalg": ["-c", "import numpy, scipy.linalg, scipy.sparse.linalg"],
    "isthmus.lab": ["-c", "import isthmus.lab"],
    "isthmus claims": ["-m", "isthmus", "claims"],
}


def seconds(arguments: list[str], environment: dict[str, str]) -> float:
    """Return the CPU seconds, user and system, of one process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print a line for each of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=5, help="how many processes of each")
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"PYTHONPYCACHEPREFIX": folder, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        for name, arguments in RUNS.items():
            seconds(arguments, environment)  # compiles
            found = [seconds(arguments, environment) for _ in range(times)]
            print(f"{name:<42} {statistics.median(found):.2f} s, at least {min(found):.2f} s")


if __name__ == "__main__":
    main()
