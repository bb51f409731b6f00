"""Loaded first by the process that workers are forked from: it dies with whoever started it, even while frozen."""

import os

from isthmus.trainer.executors.kin import SERVES, die_with_parent

_serves = os.environ.pop(SERVES, None)
die_with_parent(None if _serves is None else int(_serves))
# A worker is forked once more when the user's modules are there, and many of them begin with torch.cuda.is_available().
# That has CUDA answer, which does not survive a fork; so the driver's own library is asked instead.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
