"""Methods of the lab, each a pure ``init`` and ``step`` batched over seeds, with a stated ``cost``."""

from isthmus.lab.methods.accelerated import AcceleratedGradientDescent
from isthmus.lab.methods.anchored_ist import AnchoredIST
from isthmus.lab.methods.averaged import Averaged
from isthmus.lab.methods.base import CountedMethod, Draws, Iterate, Method, State
from isthmus.lab.methods.block_coordinate_descent import BlockCoordinateDescent
from isthmus.lab.methods.block_gradient import BlockGradientIST
from isthmus.lab.methods.dcgd import DCGD
from isthmus.lab.methods.diana import DIANA
from isthmus.lab.methods.ef21 import EF21
from isthmus.lab.methods.gdci import GDCI, DistributedGDCI
from isthmus.lab.methods.gradient_descent import GradientDescent
from isthmus.lab.methods.ist import IST
from isthmus.lab.methods.linear import LinearMethod
from isthmus.lab.methods.local_gradient_descent import LocalGradientDescent
from isthmus.lab.methods.marina import MARINA
from isthmus.lab.methods.proxskip import ProxSkip

__all__ = [
    "DCGD",
    "DIANA",
    "EF21",
    "GDCI",
    "IST",
    "MARINA",
    "AcceleratedGradientDescent",
    "AnchoredIST",
    "Averaged",
    "BlockCoordinateDescent",
    "BlockGradientIST",
    "CountedMethod",
    "DistributedGDCI",
    "Draws",
    "GradientDescent",
    "Iterate",
    "LinearMethod",
    "LocalGradientDescent",
    "Method",
    "ProxSkip",
    "State",
]
