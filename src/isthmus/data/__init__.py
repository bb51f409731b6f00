"""Real data by name or path, split into train and test and over workers."""

from isthmus.data.dataset import Dataset
from isthmus.data.graph import Graph, normalized_adjacency
from isthmus.data.idx import read_idx, read_idx_folder
from isthmus.data.libsvm import read_libsvm
from isthmus.data.many import many_classes, read_many
from isthmus.data.profiles import class_profiles
from isthmus.data.sbm import stochastic_block_model
from isthmus.data.sources import BUNDLED, load, load_standardized
from isthmus.data.split import over_workers, standardize, train_test
from isthmus.data.text import read_text
from isthmus.data.words import read_words

__all__ = [
    "BUNDLED",
    "Dataset",
    "Graph",
    "class_profiles",
    "load",
    "load_standardized",
    "many_classes",
    "normalized_adjacency",
    "over_workers",
    "read_idx",
    "read_idx_folder",
    "read_libsvm",
    "read_many",
    "read_text",
    "read_words",
    "standardize",
    "stochastic_block_model",
    "train_test",
]
