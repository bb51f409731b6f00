"""What a forward does beside its operators, and where: drawing numbers that are not torch's, differentiating itself."""

from __future__ import annotations

import random
import sys
from types import FrameType, TracebackType
from typing import Any

import numpy as np
import torch
from torch import nn

from isthmus.nets.graph.failures import is_theirs, place_now


class Asides:
    """Watches a forward, while it is entered.

    Attributes:
        differentiates: where in the user's code it calls autograd; "" if it does not.
        draws: whether it draws from the generators of Python or NumPy.
        drawing: where it does that, if the lines are watched.

    Args:
        model: whose forward it is.
        lines: whether to watch every line of the user's own code, which takes time.
    """

    def __init__(self, model: nn.Module, lines: bool = False) -> None:
        self.model, self.lines = model, lines
        self.differentiates = self.drawing = ""
        self.draws = False

    def __enter__(self) -> Asides:
        self._engine: Any = torch.autograd._engine_run_backward
        torch.autograd._engine_run_backward = self._differentiate
        self._begun = self._known = _generators()
        self._last, self._traced = "", sys.gettrace()
        if self.lines:
            sys.settrace(self._follow)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        torch.autograd._engine_run_backward = self._engine
        if self.lines:
            sys.settrace(self._traced)
            self._look()
        self.draws = self.draws or _generators() != self._begun

    def _differentiate(self, *args: Any, **kwargs: Any) -> Any:
        self.differentiates = self.differentiates or place_now(sys._getframe(), self.model)
        return self._engine(*args, **kwargs)

    def _follow(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not is_theirs(frame.f_code.co_filename):
            return None
        self._look()
        self._last = place_now(frame, self.model)
        return self._follow

    def _look(self) -> None:
        """If numbers have been drawn since the line before, that was the line."""
        if not self.drawing and _generators() != self._known:
            self.drawing = self._last


def _generators() -> tuple[Any, ...]:
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return random.getstate(), kind, np.asarray(keys).tobytes(), *rest
