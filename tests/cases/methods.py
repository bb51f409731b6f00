"""Every method of the lab, built for a problem; one table for the tests that all of them must pass."""

from collections.abc import Callable
from typing import Any

from isthmus.lab import Identity, Permutation
from isthmus.lab.compressors import (
    Composition,
    Dithering,
    IdentityCompressor,
    Natural,
    Participation,
    PermK,
    RandK,
    Scaled,
    TopK,
)
from isthmus.lab.methods import (
    DCGD,
    DIANA,
    EF21,
    GDCI,
    IST,
    MARINA,
    AcceleratedGradientDescent,
    AnchoredIST,
    Averaged,
    BlockCoordinateDescent,
    BlockGradientIST,
    DistributedGDCI,
    GradientDescent,
    LocalGradientDescent,
    ProxSkip,
)
from isthmus.lab.rates import Setting, with_default_stepsize


def some(share: float, dim: int) -> int:
    return max(1, round(share * dim))


BUILDERS: dict[str, Callable[[int, int], Any]] = {
    "gradient descent": lambda n, d: GradientDescent(1.0),
    "accelerated gradient descent": lambda n, d: AcceleratedGradientDescent(1.0, 0.3),
    "DCGD, Rand-K": lambda n, d: DCGD(RandK(d, some(0.25, d)), 1.0),
    "DCGD, Perm-K": lambda n, d: DCGD(PermK(n, d), 1.0),
    "DCGD, natural": lambda n, d: DCGD(Natural(d), 1.0),
    "DCGD, partial participation": lambda n, d: DCGD(Participation(RandK(d, some(0.5, d)), 0.5), 1.0),
    "DIANA, Rand-K": lambda n, d: DIANA(RandK(d, some(0.25, d)), 1.0),
    "DIANA, dithering": lambda n, d: DIANA(Dithering(d, 2), 1.0),
    "DIANA, Perm-K": lambda n, d: DIANA(PermK(n, d), 1.0),
    "DIANA, natural on Rand-K": lambda n, d: DIANA(Composition(RandK(d, some(0.5, d)), Natural(some(0.5, d))), 1.0),
    "DIANA, partial participation": lambda n, d: DIANA(Participation(RandK(d, some(0.5, d)), 0.5), 1.0),
    "MARINA, Rand-K": lambda n, d: MARINA(RandK(d, some(0.25, d)), 1.0, some(0.25, d) / d),
    "MARINA, Perm-K": lambda n, d: MARINA(PermK(n, d), 1.0, 1.0 / n),
    "EF21, Top-K": lambda n, d: EF21(TopK(d, some(0.25, d)), 1.0),
    "EF21, scaled Rand-K": lambda n, d: EF21(Scaled(RandK(d, some(0.25, d))), 1.0),
    "GDCI, natural": lambda n, d: GDCI(Natural(d), 1.0),
    "distributed GDCI": lambda n, d: DistributedGDCI(Natural(d), 1.0, 0.5),
    "local gradient descent": lambda n, d: LocalGradientDescent(1.0, 4),
    "local gradient descent, half the workers": lambda n, d: LocalGradientDescent(1.0, 2, (n + 1) // 2),
    "ProxSkip": lambda n, d: ProxSkip(1.0, 0.3),
    "block coordinate descent": lambda n, d: BlockCoordinateDescent(some(0.25, d), 1.0),
    "block-gradient IST": lambda n, d: BlockGradientIST(Permutation(n, d), 1.0),
    "IST": lambda n, d: IST(Permutation(n, d), 1.0),
    "anchored IST": lambda n, d: AnchoredIST(Permutation(n, d), 1.0, 5),
    "anchored IST, loopless": lambda n, d: AnchoredIST(Permutation(n, d), 1.0, 0.2),
    "anchored IST, local steps": lambda n, d: AnchoredIST(Permutation(n, d), 1.0, 5, local_steps=3),
    "anchored IST, momentum": lambda n, d: AnchoredIST(Permutation(n, d), 1.0, 5, momentum=0.3),
}


def degenerate(n: int, d: int, gamma: float) -> list[Any]:
    """Every method where it must be gradient descent, in every round and to rounding."""
    return [
        DCGD(IdentityCompressor(d), gamma),
        DCGD(RandK(d, d), gamma),
        DIANA(IdentityCompressor(d), gamma),
        DIANA(RandK(d, d), gamma, 0.3),
        MARINA(IdentityCompressor(d), gamma, 0.2),
        MARINA(RandK(d, 2), gamma, 1.0),
        MARINA(PermK(n, d), gamma, 1.0),
        EF21(IdentityCompressor(d), gamma),
        EF21(TopK(d, d), gamma),
        EF21(Scaled(RandK(d, d)), gamma),
        GDCI(IdentityCompressor(d), gamma),
        DistributedGDCI(IdentityCompressor(d), gamma),
        AcceleratedGradientDescent(gamma, 0.0),
        LocalGradientDescent(gamma, 1),
        LocalGradientDescent(gamma, 1, n),
        BlockCoordinateDescent(d, gamma),
        BlockGradientIST(Identity(n, d), gamma),
        IST(Identity(n, d), gamma),
        AnchoredIST(Identity(n, d), gamma, 1),
        AnchoredIST(Identity(n, d), gamma, 7),
        AnchoredIST(Permutation(n, d), gamma, 1),
        AnchoredIST(Permutation(n, d, scale=1.0), gamma, 1),
        ProxSkip(gamma, 1.0),
    ]


def build(name: str, problem: Any, x0: Any, rounds: int = 1) -> Any:
    """The method with the step its theorem gives, or a small one where there is none."""
    return build_for(name, Setting(problem, x0, rounds))


def build_for(name: str, setting: Setting) -> Any:
    """The same for a setting, whose constants are worked out once."""
    method = BUILDERS[name](setting.n, setting.problem.dim)
    try:
        return with_default_stepsize(method, setting)
    except ValueError:
        return type(method)(**{**vars(method), "stepsize": 0.1 / setting.constants.L_max})


def averaged(method: Any) -> Averaged:
    return Averaged(method, 3)
