"""What is done around an export so that it neither changes the network nor depends on what is set outside."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import warnings
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from isthmus.errors import InvalidInput

_TABLES = ("_modules", "_parameters")
_CONTAINERS = (dict, OrderedDict, defaultdict, list, set, deque)
_CHATTER = {"torch.fx.experimental.symbolic_shapes": logging.ERROR, "torch._subclasses.fake_tensor": logging.CRITICAL}


@contextlib.contextmanager
def as_it_was(model: nn.Module) -> Iterator[None]:
    """Give all submodules the attributes back that they had, and lists and tables among these what they held.

    A forward may keep there what it has computed (losses, positions), or hooks that record it: of no use outside.

    Raises:
        InvalidInput: it makes submodules or parameters.
    """
    before = [(path, module, dict(vars(module))) for path, module in model.named_modules()]
    values = tuple(value for _, _, attributes in before for value in attributes.values())
    held = [(each, dict(each) if isinstance(each, dict) else list(each)) for each in _containers(values)]
    tables = [(path, module, kind, set(getattr(module, kind))) for path, module, _ in before for kind in _TABLES]
    made = ""
    try:
        yield
    finally:
        for path, module, kind, names in tables:
            now: dict[str, Any] = getattr(module, kind)
            new = (name for name, value in now.items() if value is not None and name not in names)
            made = made or next((f"{path}.{name}".strip(".") for name in new), "")
        for _, module, attributes in before:
            vars(module).clear()
            vars(module).update(attributes)
        for each, found in held:
            each.clear()
            (each.extend if isinstance(each, list | deque) else each.update)(found)
        if made:
            raise InvalidInput(f"`model` makes {made} when it first runs: run it once on a batch, then trace it")


def _containers(value: Any) -> Iterator[Any]:
    """Yield the lists and tables in a value, however deep, each once."""
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if type(each) in _CONTAINERS and id(each) not in seen:
            seen.add(id(each))
            yield each
        elif not isinstance(each, tuple):
            continue
        waiting.extend(each.values() if isinstance(each, dict) else each)


@contextlib.contextmanager
def in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    flags = {module: module.training for module in model.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one fused operator for a whole layer, in evaluation only
    try:
        model.train(training)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, flag in flags.items():
            module.training = flag


@contextlib.contextmanager
def without_autocast() -> Iterator[None]:
    """A graph holds no casts but the network's own, so it can be run under autocast or not, like the network."""
    with contextlib.ExitStack() as stack:
        for device in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextlib.contextmanager
def idle_moves() -> Iterator[None]:
    """A forward that moves a submodule to the type and the device that it has already does nothing."""
    before = nn.Module.to

    def to(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        device, dtype, _, memory = torch._C._nn._parse_to(*args, **kwargs)
        state = [*self.parameters(), *self.buffers()]
        floats = [tensor for tensor in state if tensor.is_floating_point() or tensor.is_complex()]
        same = all(tensor.device == (device or tensor.device) for tensor in state)
        if same and memory is None and all(tensor.dtype == (dtype or tensor.dtype) for tensor in floats):
            return self
        return before(self, *args, **kwargs)

    nn.Module.to = to  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        nn.Module.to = before  # type: ignore[method-assign]


@contextlib.contextmanager
def lean(opened: bool) -> Iterator[None]:
    """Have an export do without what costs it more than it saves: half of its time where sizes are open.

    It makes a million small objects, nearly all of which stay, and Python would look through them again and again for
    garbage. Where sizes are open torch would look up every operator among those called before by a key made of
    expressions.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        with torch._dynamo.config.patch(fake_tensor_cache_enabled=not opened):
            yield
    finally:
        if before:
            gc.enable()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the export's own chatter (attributes set, duplicate guards, graphs that failed) off the terminal."""
    loggers = {logging.getLogger(name): level for name, level in _CHATTER.items()}
    before = {logger: logger.level for logger in loggers}
    try:
        for logger, level in loggers.items():
            logger.setLevel(level)
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # it prints what it could not export
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)
