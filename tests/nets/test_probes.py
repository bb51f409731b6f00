"""Every operator's rule against the operator itself: which results move when one entry of an operand does."""

import numpy as np
import pytest
import torch

from isthmus.nets.axes import terms
from isthmus.nets.axes.registry import RULES
from nets.operators import (
    EXAMPLES,
    FROZEN_THOUGH_INDEPENDENT,
    UNPROBED,
    elementwise_examples,
    elementwise_operators,
)
from nets.probes import Example, Probe, entries_of, sliced, unit_of


def calls(examples: list[Example]) -> pytest.MarkDecorator:
    names = [f"{i}-{example.name.removeprefix('aten::')}" for i, example in enumerate(examples)]
    return pytest.mark.parametrize("example", examples, ids=names)


def short(example: Example) -> str:
    return example.name.removeprefix("aten::").partition(".")[0]


def check_separate(probe: Probe) -> None:
    """Unless it is summed or normed over, a unit's entries move results that belong to the same unit."""
    mine = {atom: [entries_of(dims, atom) for dims in probe.result_dims] for atom in probe.separate}
    for number, (tensor, dims) in enumerate(zip(probe.operands, probe.operand_dims, strict=True)):
        owners = [[(atom, unit_of(term, atom)) for atom in mine if atom in terms.leaves(term)] for term in dims]
        for place in np.ndindex(tensor.shape):
            moved = probe.change(number, place)
            units = [(atom, unit[p]) for p, pairs in zip(place, owners, strict=True) for atom, unit in pairs]
            for atom, unit in units:
                for hit, own in zip(moved, mine[atom], strict=True):
                    assert unit < 0 or not (hit & ~own[unit]).any(), f"operand {number} at {place}"


def check_cut(probe: Probe, random: np.random.Generator) -> None:
    """On slices of the operands, with its sizes rewritten: the same entries as the whole on masked operands."""
    kept = {atom: np.sort(random.choice(atom.size, random.integers(1, atom.size + 1), replace=False))
            for atom in probe.free if not atom.tags & {"norm", "own_norm"}}  # fmt: skip
    results = zip(probe.result_dims, probe.run(probe.masked(kept)), probe.cut(kept), strict=True)
    for dims, whole, part in results:
        wanted = sliced(whole, dims, kept)
        assert part.shape == wanted.shape
        if not probe.example.random:
            torch.testing.assert_close(part, wanted, equal_nan=True)


@calls(EXAMPLES)
def test_one_entry_moves_results_of_its_own_units(example: Example) -> None:
    check_separate(Probe(example))


@calls(EXAMPLES)
def test_a_cut_call_is_the_masked_call(example: Example) -> None:
    probe, random = Probe(example), np.random.default_rng(0)
    for _ in range(3):
        check_cut(probe, random)


@calls([example for example in EXAMPLES if short(example) not in FROZEN_THOUGH_INDEPENDENT])
def test_what_is_independent_may_be_cut(example: Example) -> None:
    """Where entry j along a dimension of a result follows entry j of an operand alone, the rule freezes nothing."""
    probe = Probe(example)
    for number, dims in enumerate(probe.operand_dims):
        for dim, term in enumerate(dims):
            size = terms.size(term)
            if size > 1 and terms.is_frozen(term):
                moved = [probe.change(number, (slice(None),) * dim + (position,)) for position in range(size)]
                for result in range(len(moved[0])):
                    assert not _diagonal([each[result] for each in moved]), (number, dim, result)


def _diagonal(moved: list[np.ndarray]) -> bool:
    """Whether there is a dimension along which change j moves position j and nothing else."""
    rank = moved[0].ndim
    lines = [[m.any(tuple(e for e in range(rank) if e != d)) for m in moved] for d in range(rank)]
    return any(len(line) == len(line[0]) and np.array_equal(line, np.eye(len(line), dtype=bool)) for line in lines)


def test_every_rule_has_a_probe() -> None:
    tried = {name for example in EXAMPLES for name in (example.name, example.name.partition(".")[0])}
    inside = {"_add_batch_dim", "_remove_batch_dim"}  # they run within a vmap: tried in whole networks
    assert sorted(set(RULES) - tried - inside) == sorted(UNPROBED)


@pytest.mark.parametrize("name", elementwise_operators())
def test_what_torch_calls_elementwise_is(name: str) -> None:
    """Operators of more than one result, or of none, have no rule and are kept whole."""
    examples = elementwise_examples(name)
    assert examples or name in ("equal", "frexp")
    for example in examples:
        probe = Probe(example)
        assert len(probe.free) == 2
        check_separate(probe)
        check_cut(probe, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("operator", "wrong"),
    [
        ("aten::softmax", lambda call: call.dims(call["self"])),
        ("aten::flip", lambda call: call.dims(call["self"])),
        ("aten::index_add", lambda call: call.dims(call["self"])),
    ],
)
def test_a_wrong_rule_is_found(operator: str, wrong, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, operator, wrong)
    examples = [example for example in EXAMPLES if example.name.startswith(operator + ".")]
    with pytest.raises(AssertionError, match=r"operand \d at"):
        check_separate(Probe(examples[0]))
