"""Real data by name or path, split into train and test and over workers."""

from isthmus.data.dataset import Dataset
from isthmus.data.idx import read_idx, read_idx_folder
from isthmus.data.libsvm import read_libsvm
from isthmus.data.sources import BUNDLED, load
from isthmus.data.split import over_workers, standardize, train_test

__all__ = [
    "BUNDLED",
    "Dataset",
    "load",
    "over_workers",
    "read_idx",
    "read_idx_folder",
    "read_libsvm",
    "standardize",
    "train_test",
]
