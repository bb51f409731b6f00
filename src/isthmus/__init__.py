"""Independent Subnetwork Training: exact theory on quadratics, and a trainer that cuts a network over processes.

``isthmus.lab`` is the theory (NumPy only); ``isthmus.nets`` and ``isthmus.trainer`` are the trainer (PyTorch, the extra
``train``). Importing ``isthmus`` loads neither.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "trace": "isthmus.nets.tracing",
    "cut": "isthmus.nets.subnetwork",
    "merge": "isthmus.nets.merge",
}


def __getattr__(name: str) -> Any:
    """Load what needs torch only when it is asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module 'isthmus' has no attribute {name!r}")
    try:
        return getattr(import_module(_LAZY[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from isthmus.errors import MissingDependency

        raise MissingDependency(f"isthmus.{name} needs PyTorch: pip install 'isthmus[train]'") from error
