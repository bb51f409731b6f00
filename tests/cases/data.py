"""Every source of data, by the name it is loaded by; one table for the tests that all of them must pass."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np

LENGTH = 8  # of a sequence, for text


def _idx(folder: Path) -> str:
    random = np.random.default_rng(0)
    for part, size in (("train", 30), ("t10k", 9)):
        images, labels = random.integers(0, 256, (size, 4, 5)), np.arange(size) % 3
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))
    return f"idx:{folder}"


def _libsvm(folder: Path) -> str:
    (folder / "data.txt").write_text("".join(f"{(-1) ** i} 1:{i} 3:{i / 7}\n" for i in range(12)))
    return f"libsvm:{folder / 'data.txt'}"


def _text(folder: Path) -> str:
    (folder / "text.txt").write_text("to be or not to be, " * 40)
    return f"text:{folder}"


def _words(folder: Path) -> str:
    (folder / "words.txt").write_text("to be or not to be, that is what is asked here. " * 40)
    return f"words:{folder / 'words.txt'}@9"


def _python(folder: Path) -> str:
    code = "import numpy as np\nfrom isthmus.data import Dataset\ndef waves():\n"
    code += "    return Dataset('waves', np.eye(10), np.arange(10) % 2, 2, (10,))\n"
    (folder / "my_waves.py").write_text(code)
    return "python:my_waves:waves"  # in the current folder


# source: writes what it reads into a folder and returns the name to load
SOURCES: dict[str, Callable[[Path], str]] = {
    "digits": lambda folder: "digits",
    "diabetes": lambda folder: "diabetes",
    "breast-cancer": lambda folder: "breast-cancer",
    "sbm": lambda folder: "sbm",
    "idx:": _idx,
    "libsvm:": _libsvm,
    "text:": _text,
    "words:": _words,
    "many:": lambda folder: "many:30:4",
    "sbm:": lambda folder: "sbm:120",
    "python:": _python,
}
