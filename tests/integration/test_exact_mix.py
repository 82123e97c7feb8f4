"""The mix alone: exact in every batch, each source epoch by epoch, resumed to the bit, on any number of ranks."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, DataLoader

from synthgen import ExactMix
from synthgen.errors import ConfigError, MismatchError
from synthgen.integration.exact_mix import fingerprint, interleave

SIZES = {"real": 50, "synthetic": 30, "other": 7}
SHARES = {"synthetic": "1/3", "other": 0.1}


def drawn(mix: ExactMix, steps: range) -> np.ndarray:
    return np.concatenate([mix.batch(step) for step in steps])


@given(st.integers(1, 40), st.lists(st.integers(0, 20), min_size=2, max_size=4), st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_shares_are_exact_before_any_step_and_in_every_batch(batch, parts, step):
    if not sum(parts):
        parts[0] = 1
    shares = {str(k): Fraction(part, sum(parts)) for k, part in enumerate(parts)}
    mix = ExactMix(dict.fromkeys(shares, 11), shares, batch)
    before, counts = mix._before(step), mix.counts(step)
    assert sum(counts.values()) == batch and min(counts.values()) >= 0
    for name, share in shares.items():
        assert abs(before[name] - step * batch * share) < len(shares) - 1
        assert abs(counts[name] - batch * share) < len(shares) - 1
        assert share or not counts[name]


def test_each_source_is_walked_epoch_by_epoch():
    mix = ExactMix(SIZES, SHARES, 12, seed=3)
    positions = drawn(mix, range(60))
    names = np.array(mix.sources(positions))
    assert set(names) == set(SIZES)
    for k, (name, size) in enumerate(SIZES.items()):
        walk = positions[names == name]
        assert walk.min() >= mix.edges[k] and walk.max() < mix.edges[k + 1]
        for epoch in range(len(walk) // size):
            assert Counter(Counter(walk[epoch * size : (epoch + 1) * size]).values()) == {1: size}, name


def test_ranks_share_the_walk_of_one():
    alone, ranks = ExactMix(SIZES, SHARES, 12, seed=1), [ExactMix(SIZES, SHARES, 4, 1, None, r, 3) for r in range(3)]
    names = lambda positions: Counter(alone.sources(positions))
    for step in range(10):
        parts = [mix.batch(step) for mix in ranks]
        assert len({tuple(sorted(names(part).items())) for part in parts}) == 1  # alike on every rank
    together = np.concatenate([mix.batch(step) for step in range(30) for mix in ranks])
    for k, (name, size) in enumerate(SIZES.items()):
        own = together[(together >= alone.edges[k]) & (together < alone.edges[k + 1])]
        whole = len(own) // size * size
        assert set(Counter(own[:whole]).values()) <= {whole // size}, name  # no rank draws what another drew


def test_a_loader_with_workers_gives_what_the_mix_says_and_resumes_to_the_bit():
    data = ConcatDataset([[f"{name} {k}" for k in range(size)] for name, size in SIZES.items()])
    straight = [b for b in DataLoader(data, batch_sampler=ExactMix(SIZES, SHARES, 6, steps=8), collate_fn=list)]
    mix = ExactMix(SIZES, SHARES, 6, steps=8)
    seen = []
    for batch in DataLoader(data, batch_sampler=mix, collate_fn=list, num_workers=2, prefetch_factor=4):
        seen.append(batch)
        if len(seen) == 3:
            break
    again = ExactMix(SIZES, SHARES, 6, steps=8)
    again.load_state_dict(mix.state_dict(3))
    assert len(again) == 5
    assert seen + [b for b in DataLoader(data, batch_sampler=again, collate_fn=list)] == straight


@pytest.mark.parametrize(("world", "batch"), [(1, 12), (3, 2), (2, 5)])
def test_on_other_ranks_it_goes_on_at_the_same_place_of_every_source(world, batch):
    before = [ExactMix(SIZES, SHARES, 6, 5, None, r, 2) for r in range(2)]
    first = np.concatenate([mix.batch(step) for step in range(7) for mix in before])
    after = [ExactMix(SIZES, SHARES, batch, 5, None, r, world) for r in range(world)]
    for mix in after:
        mix.load_state_dict(before[0].state_dict(7))
    then = np.concatenate([mix.batch(step) for step in range(7, 40) for mix in after])
    walk, alone = np.concatenate([first, then]), after[0]
    for k, (name, size) in enumerate(SIZES.items()):
        own = walk[(walk >= alone.edges[k]) & (walk < alone.edges[k + 1])]
        whole = len(own) // size * size
        assert set(Counter(own[:whole]).values()) == {whole // size}, name
    # and once more, back to where it came from: the state is the place, not the history
    last = [ExactMix(SIZES, SHARES, 6, 5, None, r, 2) for r in range(2)]
    for mix in last:
        mix.load_state_dict(after[0].state_dict(20))
    assert last[0].state_dict(20)["drawn"] == after[0].state_dict(20)["drawn"]


def test_fingerprints_are_those_of_the_samples_not_of_their_order():
    ranks = [ExactMix(SIZES, SHARES, 4, 1, None, r, 3) for r in range(3)]
    ids = np.concatenate([mix.batch(4) for mix in ranks])
    assert {mix.fingerprint(4) for mix in ranks} == {fingerprint(ids)} == {fingerprint(ids[::-1])}
    assert ranks[0].fingerprint(5) != fingerprint(ids)
    assert fingerprint(np.append(ids[1:], ids[1])) != fingerprint(ids)


def test_streams_are_interleaved_in_the_same_numbers():
    mix = ExactMix(SIZES, SHARES, 6, steps=5)
    streams = {name: iter([name] * 100) for name in SIZES}
    batches = list(interleave(mix, streams))
    assert [Counter(batch) for batch in batches] == [Counter(mix.sources(mix.batch(step))) for step in range(5)]


@pytest.mark.parametrize(
    ("sizes", "shares", "words"),
    [
        ({"a": 3, "b": 3}, {"a": 0.5, "b": 0.6}, "do not add up"),
        ({"a": 3, "b": 3, "c": 3}, {"a": 0.5}, "do not add up"),
        ({"a": 3, "b": 0}, {"b": 0.5}, "is empty"),
        ({"a": 3}, {"z": 0.5}, "not there"),
        ({"a": 3, "b": 3}, {"a": "many"}, "not a number"),
    ],
)
def test_shares_that_cannot_be_are_refused(sizes, shares, words):
    with pytest.raises(ConfigError, match=words):
        ExactMix(sizes, shares, 4)


def test_a_source_of_no_share_may_be_empty():
    assert set(ExactMix({"a": 3, "b": 0}, {"b": 0}, 4).batch(2)) <= {0, 1, 2}


def test_another_mix_is_not_gone_on_with():
    state = ExactMix(SIZES, SHARES, 4).state_dict(3)
    for other in (ExactMix(SIZES | {"real": 51}, SHARES, 4), ExactMix(SIZES, SHARES, 4, seed=1)):
        with pytest.raises(MismatchError, match="goes on with other"):
            other.load_state_dict(state)
