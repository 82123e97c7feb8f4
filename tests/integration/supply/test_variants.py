"""Variants of real cubes as second views: each its own, a few times, the same after a resume."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from synthgen.contracts import Admission
from synthgen.errors import MismatchError
from synthgen.integration.mix import Mix, crossing
from synthgen.integration.supply.variants import Variants
from synthgen.quality.per_cube.acceptance import COPY
from synthgen.ssl.augment.pipeline import Augmentation, Augmenter


def real(cohort, *places):
    return torch.from_numpy(cohort.cubes(np.array(places))), torch.tensor(places)


def test_a_variant_serves_its_draws_and_is_then_made_anew(generator, cohort):
    variants = Variants(generator, len(cohort), reuse=2, steps=2, noise=0.4)
    cubes, index = real(cohort, 3, 5)
    first, second, third = (variants.draw(cubes, index) for _ in range(3))
    assert torch.equal(first, second) and not torch.equal(first, third)
    assert variants.counters() == {"variants/made": 4, "variants/rejected": 0, "variants/draws": 6}
    expected = generator.vary(cubes, [3, 5], 0, 0.4, 2, "ab2")
    assert torch.equal(first, generator.decode(expected))
    assert not torch.equal(first[0], cubes[0])


def test_one_cube_twice_in_a_batch_is_counted_twice(generator, cohort):
    variants = Variants(generator, len(cohort), reuse=3, steps=1)
    cubes, index = real(cohort, 4, 4)
    for _ in range(3):
        found = variants.draw(cubes, index)
        assert torch.equal(found[0], found[1])
    assert variants.draw_count[4] == 6 and len(variants._held) == 0


def test_ranks_make_different_variants(generator, cohort):
    cubes, index = real(cohort, 1)
    made = [Variants(generator, len(cohort), steps=1, rank=r, world=2).draw(cubes, index) for r in range(2)]
    assert not torch.equal(*made)


def test_a_resumed_run_draws_the_same_variants(generator, cohort):
    def fresh():
        return Variants(generator, len(cohort), reuse=2, steps=1)

    cubes, index = real(cohort, 0, 2, 4)
    whole, begun, resumed = fresh(), fresh(), fresh()
    begun.draw(cubes, index)
    resumed.load_state_dict(begun.state_dict())
    whole.draw(cubes, index)
    for _ in range(3):
        assert torch.equal(resumed.draw(cubes, index), whole.draw(cubes, index))
    assert resumed.draw_count.tolist() == whole.draw_count.tolist()
    with pytest.raises(MismatchError, match="another generator or cohort"):
        Variants(generator, 3).load_state_dict(begun.state_dict())


def test_what_the_gates_turn_down_gives_way_to_the_cube_but_likeness_is_no_fault(generator, cohort):
    def gate(cubes):
        return Admission(torch.tensor([True, False, False]), (COPY, "far from every real cube"))

    variants = Variants(generator, len(cohort), steps=1, gates=gate)
    cubes, index = real(cohort, 0, 1, 2)
    found = variants.draw(cubes, index)
    assert [bool(torch.equal(a, b)) for a, b in zip(found, cubes, strict=True)] == [False, False, True]
    assert variants.counters()["variants/rejected"] == 1


def test_the_share_of_crossing_samples_is_exact():
    mix = Mix(Fraction(1, 2), 12)
    counts = [crossing(mix, Fraction(1, 4), step) for step in range(40)]
    assert sum(counts) == 60 and set(counts) == {1, 2}
    assert [crossing(mix, Fraction(0), step) for step in range(3)] == [0, 0, 0]
    assert {crossing(mix, Fraction(1), step) for step in range(9)} == {6}


def test_only_the_second_view_is_of_the_second_source(cohort):
    augmenter = Augmenter(Augmentation(), cohort.wavelengths, 32)
    one, other = (torch.from_numpy(cohort.cubes(np.arange(4) + k)) for k in (0, 8))
    plain = augmenter.views(one, 0, 0, np.arange(4), n_views=3)
    crossed = augmenter.views(one, 0, 0, np.arange(4), n_views=3, second=other)
    assert torch.equal(plain[0], crossed[0]) and torch.equal(plain[2], crossed[2])
    assert torch.equal(crossed[1], augmenter.views(other, 0, 0, np.arange(4), n_views=3)[1])
