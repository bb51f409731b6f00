"""Loaded first by the process that workers are forked from: it dies with whoever started it, even while frozen."""

from isthmus.trainer.executors.kin import die_with_parent

die_with_parent()
