"""What to do about the smaller sums of a subnetwork: nothing, or a factor in training, at evaluation, or searched.

A worker that holds row i of a weight adds up w_ij h_j over the columns j it holds too; the merged network adds up all.
The merged network's sums match those of its pieces in the mean when w_ij is multiplied by

    s_ij = P(column j is held | row i is held)

which follows from the scenarios of the law. Without a core that is 1/n for most; units of a core are always held, so
there it is 1; under ``block`` a piece sees within itself what it saw in training, s = 1. The factors are folded into
the parameters: the merged network stays the user's own module. Where a norm follows the sum it absorbs a factor common
to all units. A residual branch is multiplied by the probability that a worker has it. Never mix conventions on an axis.

References:
    Dun, Wolfe, Jermaine, Kyrillidis, ResIST: Layer-wise decomposition of ResNets for distributed training, 2022.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, fx, nn

from isthmus.errors import InvalidInput, check_choice
from isthmus.nets.axes import terms
from isthmus.nets.axes.choosing import holding
from isthmus.nets.axes.records import Contraction
from isthmus.nets.axes.structure import Axis, Structure
from isthmus.nets.axes.terms import Atom
from isthmus.nets.pieces.laws import NetPartition
from isthmus.nets.pieces.pattern import Pattern
from isthmus.nets.pieces.subnetwork import named_state
from isthmus.nets.scale.folding import Unfoldable, Use, absorbed, branch_parameters, fold, parameter_uses
from isthmus.nets.scale.presence import Presence, atoms_of

CHOICES = ("auto", "none", "train", "eval", "readout")
_HUGE = 1e30


@dataclass(frozen=True, eq=False)
class Scaling:
    """Factors on what the units of each cut axis contribute.

    Attributes:
        train: in a subnetwork, by axis (pass them to :func:`isthmus.cut` as ``factors``).
        evaluation: in the merged network, by parameter, broadcastable to it: evaluated weights = merged weights times
            this (see :func:`scaled`); parameters whose factors are all 1 are left out.
        open: the parameters of ``evaluation`` whose sum no norm absorbs: a factor common to all of it matters.
        why: the choice for each axis, and its reason.
        by_axis: the factors of ``evaluation``, which are their product, for each axis apart.
    """

    train: Mapping[str, float]
    evaluation: Mapping[str, Pattern]
    open: tuple[str, ...]
    why: Mapping[str, str]
    by_axis: Mapping[str, Mapping[str, Pattern]] = field(default_factory=dict, repr=False)


def scaling(coupling: Structure, partition: NetPartition, choice: str | Mapping[str, str] = "auto") -> Scaling:
    """Return the factors for a partition.

    Args:
        coupling, partition: what is cut, and how.
        choice: for all axes or by axis: ``none``; ``train`` (1/r in the subnetworks, r the mean fraction of the axis
            that a worker holds); ``eval`` (s in the merged network); ``readout`` (as ``eval``, to be replaced by
            :func:`search_readout`); ``auto``: ``eval``.

    Raises:
        InvalidInput: an unknown choice.
    """
    coupling = holding(coupling, partition.held)
    presence = Presence(coupling, partition)
    found = _Folded(coupling, presence)
    train, why = {}, {}
    for axis in coupling.cut_axes:
        asked = choice if isinstance(choice, str) else choice.get(axis.name, "auto")
        check_choice("choice", asked, CHOICES)
        if asked == "train" and axis.atom is not None:
            train[axis.name] = 1.0 / float(presence.mean(axis.name).mean())
        if axis.kind == "expert" and asked in ("auto", "eval"):
            why[axis.name] = "1: the router weighs those that are held anew"
        elif asked in ("none", "train"):
            why[axis.name] = f"{asked}: as asked"
        else:
            found.axes[axis.name] = axis
            why[axis.name] = "readout" if asked == "readout" else "eval"
    found.fold_weights()
    found.fold_branches()
    why |= {name: found.reason(name, why[name]) for name in found.axes}
    by_axis = {name: found.patterns(name) for name in found.axes}
    evaluation = _product(by_axis)
    return Scaling(train, evaluation, tuple(name for name in evaluation if name in found.open), why, by_axis)


@contextlib.contextmanager
def scaled(model: nn.Module, factors: Mapping[str, Tensor | Pattern]) -> Iterator[nn.Module]:
    """Multiply parameters by factors inside the block; after it they hold the very bits they held before.

    Args:
        model: the merged network.
        factors: by parameter, broadcastable to it (``Scaling.evaluation``); only these are copied meanwhile.

    Raises:
        InvalidInput: a name the network has no parameter of, or a factor that does not fit.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> before = layer.weight.clone()
    >>> with scaled(layer, {"weight": torch.tensor([[0.5, 1.0]])}) as halved:
    ...     bool(torch.equal(halved.weight, before * torch.tensor([[0.5, 1.0]])))
    True
    >>> bool(torch.equal(layer.weight, before))
    True
    """
    whole = dict(named_state(model))
    for name, factor in factors.items():
        if name not in whole:
            raise InvalidInput(f"`factors` names {name!r}, which is no parameter of the network")
        sizes, given = tuple(whole[name].shape), tuple(factor.shape)
        if len(given) != len(sizes) or any(f not in (1, s) for f, s in zip(given, sizes, strict=True)):
            raise InvalidInput(f"the factor of {name!r} must fit shape {sizes}, got {given}")
    before = {name: whole[name].detach().clone() for name in factors}
    try:
        with torch.no_grad():
            for name, factor in factors.items():
                Pattern.of(factor).multiply(whole[name])
        yield model
    finally:
        with torch.no_grad():
            for name, tensor in before.items():
                whole[name].copy_(tensor)


def search_readout(
    model: nn.Module, coupling: Structure, scaling: Scaling, loss: Callable[[nn.Module], float]
) -> Scaling:
    """Return the scaling with s ** t in place of s, one t in [0, 1.5] per axis, chosen to minimise ``loss``.

    The axes take turns, once, each starting from what the others have; t = 1 (as ``eval``) stays unless another is
    better. Axes whose sums all go into a norm are left alone.

    Args:
        model: the merged network; it has its own weights again afterwards.
        coupling: of the network.
        scaling: with ``by_axis``, from :func:`scaling`.
        loss: of the network, on data set aside for it; it recomputes norm statistics if there are any.
    """
    powers = dict.fromkeys(scaling.by_axis, 1.0)
    searched = [axis.name for axis in coupling.axes if set(scaling.by_axis.get(axis.name, ())) & set(scaling.open)]

    def along(power: float, axis: str) -> float:
        with torch.no_grad(), scaled(model, _product(_raised(scaling.by_axis, {**powers, axis: power}))):
            value = float(loss(model))
        return value if math.isfinite(value) else _HUGE

    best = along(1.0, searched[0]) if searched else math.inf
    for axis in searched:
        options = {"xatol": 0.02, "maxiter": 12}
        found = minimize_scalar(along, bounds=(0.0, 1.5), args=(axis,), method="bounded", options=options)
        if found.fun < best:
            best, powers[axis] = float(found.fun), float(found.x)
    by_axis = _raised(scaling.by_axis, powers)
    why = {**scaling.why, **{axis: f"readout: exponent {powers[axis]:.2f} found on held-out data" for axis in searched}}
    return replace(scaling, evaluation=_product(by_axis), by_axis=by_axis, why=why)


class _Folded:
    """Collects the factors that could be folded, and why others could not."""

    def __init__(self, coupling: Structure, presence: Presence) -> None:
        self.coupling, self.presence = coupling, presence
        self.uses = parameter_uses(coupling.exports["eval"])
        self.axes: dict[str, Axis] = {}
        self.open: set[str] = set()
        self.factors: dict[str, dict[str, Pattern]] = {}
        self.problems: dict[str, list[str]] = {}
        self.absorbed: dict[str, list[bool]] = {}

    def fold_weights(self) -> None:
        """Fold what is known of every sum over a cut axis into the weight it is summed against."""
        of = atoms_of(self.axes)
        sums: dict[tuple[fx.Node, fx.Node], list[Contraction]] = {}
        for each in self.coupling.propagations["eval"].contractions:
            axes = [of[leaf] for leaf in terms.leaves(each.summed) if leaf in of]
            if axes and each.kind == "weight" and each.weight is not None:
                sums.setdefault((each.node, each.weight), []).append(each)
            elif axes:
                reason = {"activation": "a product of activations", "sum": "a sum without weights"}
                self._fail(axes, reason.get(each.kind, "the operator's rule does not name the weight"))
        for name, uses in self.uses.items():
            here = {use: sums.get((use.consumer, use.operand), []) for use in uses}
            for use in here:
                sums.pop((use.consumer, use.operand), None)
            axes = [of[a] for cs in here.values() for c in cs for a in terms.leaves(c.summed) if a in of]
            if axes:
                self._fold_weight(name, here, list(dict.fromkeys(axes)))
        for rest in sums.values():
            axes = [of[leaf] for each in rest for leaf in terms.leaves(each.summed) if leaf in of]
            self._fail(axes, "the weight is computed from parameters")

    def fold_branches(self) -> None:
        """Fold the probability that a worker holds a residual block into the end of its branch."""
        for axis in self.axes.values():
            for block, share in zip(axis.blocks, self.presence.mean(axis.name), strict=False):
                try:
                    names = branch_parameters(block.removals["eval"], self.uses)
                    for name in names:
                        self._check(name)
                except Unfoldable as problem:
                    self._fail([axis.name], f"{block.name}: {problem}")
                    continue
                for name in names:
                    rank = len(self.coupling.entries[name].shape)
                    self._add(axis.name, name, Pattern.of(torch.full((1,) * rank, share, dtype=torch.float64)), False)

    def reason(self, name: str, choice: str) -> str:
        """Return what was done about an axis, and why."""
        problems = "; ".join(dict.fromkeys(self.problems.get(name, ())))
        if name not in self.absorbed:
            return f"1: {problems or 'nothing sums over it against a weight'}"
        if self.axes[name].blocks:
            text = f"{choice}: the branch counts as often as a worker holds it"
        elif all(self.absorbed[name]):
            text = f"{choice}: a norm follows, which absorbs a common factor"
        else:
            text = f"{choice}: no norm follows"
        return f"{text}; 1 elsewhere: {problems}" if problems else text

    def patterns(self, axis: str) -> dict[str, Pattern]:
        """Return the factors of an axis that are not all 1."""
        entries, found = self.coupling.entries, self.factors.get(axis, {})
        return {name: factor.to(entries[name].dtype) for name, factor in found.items() if not factor.is_all(1.0)}

    def _fold_weight(self, name: str, uses: Mapping[Use, list[Contraction]], axes: list[str]) -> None:
        try:
            self._check(name)
            if len(uses) < len(self.uses[name]):
                raise Unfoldable("the weight is multiplied by itself")
            shares = [(use, self._shares(name, use, found, axes)) for use, found in uses.items()]
            folded = {
                axis: fold(self.coupling.entries[name].shape, [(use, each[axis]) for use, each in shares])
                for axis in axes
            }
        except Unfoldable as problem:
            self._fail(axes, f"{name}: {problem}")
            return
        follows = all(absorbed(use.consumer) for use in uses)
        for axis, factors in folded.items():
            self._add(axis, name, factors, follows)

    def _shares(self, name: str, use: Use, sums: list[Contraction], axes: list[str]) -> dict[str, Pattern]:
        dims = self.coupling.propagations["eval"].dims[use.operand]
        summed: dict[int, frozenset[Atom]] = {
            each.weight_dim: frozenset(terms.leaves(each.summed)) & frozenset(terms.leaves(dims[each.weight_dim]))
            for each in sums
        }
        return self.presence.shares(name, dims, summed, axes)

    def _check(self, name: str) -> None:
        entry = self.coupling.entries.get(name)
        if entry is None or not entry.is_parameter:
            raise Unfoldable("it is summed against a constant, not a parameter")
        if entry.shares_memory is not None:
            raise Unfoldable(f"it shares memory with {entry.shares_memory}")

    def _add(self, axis: str, name: str, factors: Pattern, follows: bool) -> None:
        self.factors.setdefault(axis, {})[name] = factors
        self.absorbed.setdefault(axis, []).append(follows)
        if not follows:
            self.open.add(name)

    def _fail(self, axes: list[str], problem: str) -> None:
        for axis in axes:
            self.problems.setdefault(axis, []).append(problem)


def _raised(by_axis: Mapping[str, Mapping[str, Pattern]], powers: Mapping[str, float]) -> dict[str, dict[str, Pattern]]:
    return {axis: {name: f ** powers[axis] for name, f in factors.items()} for axis, factors in by_axis.items()}


def _product(by_axis: Mapping[str, Mapping[str, Pattern]]) -> dict[str, Pattern]:
    result: dict[str, Pattern] = {}
    for factors in by_axis.values():
        for name, factor in factors.items():
            result[name] = result[name] * factor if name in result else factor
    return result
