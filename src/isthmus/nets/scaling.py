"""What to do about the smaller sums of a subnetwork: nothing, or a factor in training, at evaluation, or searched.

A subnetwork sums over a fraction r of the units of an axis. Where a norm follows the sum it absorbs the difference;
elsewhere the merged network's sums are 1/r times those its parts were trained with. Never mix conventions on an axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from scipy.optimize import minimize_scalar
from torch import fx, nn

from isthmus.errors import check_choice
from isthmus.nets import terms
from isthmus.nets.coupling import Axis, Coupling
from isthmus.nets.laws import NetPartition
from isthmus.nets.subnetwork import build

CHOICES = ("auto", "none", "train", "eval", "readout")
_NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")
_MOVES = ("view", "reshape", "transpose", "permute", "contiguous", "dropout", "flatten", "unflatten", "to.", "alias")


@dataclass(frozen=True)
class Scaling:
    """Factors on what the units of each cut axis contribute.

    Attributes:
        train: in a subnetwork, by axis (pass them to :func:`isthmus.cut` as ``factors``).
        evaluation: in the merged network, by axis (see :func:`evaluation_network`).
        why: the choice for each axis, and its reason.
    """

    train: Mapping[str, float]
    evaluation: Mapping[str, float]
    why: Mapping[str, str]


def scaling(coupling: Coupling, partition: NetPartition, choice: str | Mapping[str, str] = "auto") -> Scaling:
    """Return the factors for a partition.

    Args:
        coupling, partition: what is cut, and how; r is the mean fraction of an axis that a worker holds.
        choice: for all axes or by axis: ``none``; ``train`` (1/r in the subnetworks); ``eval`` (r in the merged
            network); ``readout`` (as ``eval``, to be replaced by :func:`search_readout`); ``auto``: ``none`` where a
            norm follows the sum, ``eval`` elsewhere.

    Raises:
        InvalidInput: an unknown choice.
    """
    train, evaluation, why = {}, {}, {}
    for axis in coupling.cut_axes:
        asked = choice if isinstance(choice, str) else choice.get(axis.name, "auto")
        check_choice("choice", asked, CHOICES)
        held = partition.held[axis.name]
        fraction = sum(len(units) for units in held) / (axis.size * len(held))
        reason = "as asked"
        if asked == "auto":
            normed = axis.atom is None or norm_follows(coupling, axis)
            asked, reason = ("none", "a norm follows") if normed else ("eval", "no norm follows")
        why[axis.name] = f"{asked}: {reason}"
        if asked == "train":
            train[axis.name] = 1.0 / fraction
        elif asked in ("eval", "readout"):
            evaluation[axis.name] = fraction
    return Scaling(train, evaluation, why)


def evaluation_network(model: nn.Module, coupling: Coupling, factors: Mapping[str, float]) -> nn.Module:
    """Return the whole network as a module in evaluation mode, the units' contributions multiplied by ``factors``."""
    return build(model, coupling, {}, 0, factors).module.eval()


def search_readout(
    model: nn.Module, coupling: Coupling, factors: Mapping[str, float], loss: Callable[[nn.Module], float]
) -> dict[str, float]:
    """Return factors f ** t with t in [0, 1.5] that minimises ``loss`` of the merged network (t = 1: as ``eval``).

    Args:
        model, coupling: the merged network.
        factors: of ``Scaling.evaluation``.
        loss: of a network in evaluation mode, on data set aside for it.
    """

    def at(power: float) -> float:
        with torch.no_grad():
            return loss(evaluation_network(model, coupling, {name: f**power for name, f in factors.items()}))

    best = minimize_scalar(at, bounds=(0.0, 1.5), method="bounded", options={"xatol": 0.02, "maxiter": 20})
    return {name: f ** float(best.x) for name, f in factors.items()}


def norm_follows(coupling: Coupling, axis: Axis) -> bool:
    """Whether every sum over the axis goes into a norm before anything else happens to it."""
    if axis.atom is None:
        return True
    atom = terms.resolve(axis.atom)
    sums = [
        contraction.node
        for contraction in coupling.analyses["eval"].contractions
        if contraction.kind != "activation" and atom in terms.leaves(contraction.summed)
    ]
    return bool(sums) and all(_leads_to_norm(node) for node in sums)


def _leads_to_norm(node: fx.Node) -> bool:
    users = list(node.users)
    if not users:
        return False
    for user in users:
        name = str(user.target)
        if any(norm in name for norm in _NORMS):
            continue
        if not any(move in name for move in _MOVES) or not _leads_to_norm(user):
            return False
    return True
