"""Every compressor of the lab, for d = 12 coordinates and 3 workers; one table for all their tests."""

from isthmus.lab.compressors import (
    Composition,
    Compressor,
    Dithering,
    IdentityCompressor,
    Natural,
    Participation,
    PermK,
    RandK,
    Scaled,
    TopK,
    bernoulli_compressor,
)

DIM, WORKERS = 12, 3

COMPRESSORS: dict[str, Compressor] = {
    "identity": IdentityCompressor(DIM),
    "rand-k": RandK(DIM, 5),
    "rand-k with indices": RandK(DIM, 2, shared_seed=False),
    "rand-k with a mask": RandK(DIM, 5, shared_seed=False),
    "top-k": TopK(DIM, 2),
    "top-k with a mask": TopK(DIM, 7),
    "perm-k": PermK(WORKERS, DIM),
    "perm-k with indices": PermK(WORKERS, DIM, shared_seed=False),
    "dithering, 1 level": Dithering(DIM, 1),
    "dithering, 4 levels": Dithering(DIM, 4),
    "natural": Natural(DIM),
    "bernoulli": bernoulli_compressor(DIM, 0.3),
    "bernoulli, always": bernoulli_compressor(DIM, 1.0),
    "partial participation": Participation(RandK(DIM, 3, shared_seed=False), 0.6),
    "rand-k with a mask, partial participation": Participation(RandK(DIM, 5, shared_seed=False), 0.5),
    "dithering on masked rand-k, partial participation": Participation(
        Composition(RandK(DIM, 5, shared_seed=False), Dithering(5, 3)), 0.5
    ),
    "perm-k with partial participation": Participation(PermK(WORKERS, DIM), 0.5),
    "natural on rand-k": Composition(RandK(DIM, 4), Natural(4)),
    "dithering on rand-k with indices": Composition(RandK(DIM, 4, shared_seed=False), Dithering(4, 3)),
    "scaled rand-k": Scaled(RandK(DIM, 3)),
    "scaled natural": Scaled(Natural(DIM)),
}
UNEVEN: dict[str, Compressor] = {
    "perm-k, n does not divide d": PermK(3, 7),
    "perm-k with indices, n does not divide d": PermK(3, 7, shared_seed=False),
    "perm-k with indices, uneven, with partial participation": Participation(PermK(5, 12, shared_seed=False), 0.6),
    "perm-k, uneven, with partial participation": Participation(PermK(8, 12), 0.6),
    "perm-k, d divides n": PermK(6, 3),
    "perm-k, n > d": PermK(7, 3),
    "perm-k, one worker": PermK(1, 5),
}
# Where the statement of omega is an equality for every vector, not an upper bound.
EXACT_OMEGA = {
    "identity", "rand-k", "rand-k with indices", "rand-k with a mask", "perm-k", "perm-k with indices", "bernoulli",
    "bernoulli, always", "partial participation", "perm-k with partial participation",
}  # fmt: skip
EXACT_OMEGA |= set(UNEVEN)
ALL = {**COMPRESSORS, **UNEVEN}


def workers_of(compressor: Compressor) -> int:
    """The number of workers a joint compressor is for, 3 for the others."""
    inner = getattr(compressor, "compressor", compressor)
    return inner.workers if isinstance(inner, PermK) else WORKERS
