"""The pool: reuse limit, disjoint ids, exact state, and honest failure when it runs dry."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from synthgen.contracts import Admission, Tokens
from synthgen.errors import GateError, MismatchError
from synthgen.generator.dataset import Chunk, SyntheticRetinaDataset
from synthgen.integration.supply.pool import SyntheticPool
from synthgen.integration.supply.pool_state import reshard


def make_pool(generator, per_step=4, rank=0, world=1, gates=None, **more):
    dataset = SyntheticRetinaDataset(
        generator, seed=5, steps=1, sampler="euler", gates=gates, output="tokens", rank=rank, world=world
    )
    return SyntheticPool(dataset, per_step, seed=5, rank=rank, **more)


def test_no_id_more_often_than_the_reuse_limit_and_never_twice_in_a_batch(generator):
    pool = make_pool(generator, reuse=3)
    pool.fill()
    seen = Counter()
    for step in range(60):
        cubes, ids = pool.draw(4, step)
        assert cubes.shape == (4, 16, 32, 32) and len(set(ids.tolist())) == 4
        seen.update(ids.tolist())
    assert max(seen.values()) <= 3 and pool.overdrawn == 0
    assert sum(seen.values()) == 240 == pool.drawn


def test_what_is_drawn_is_what_the_id_says(generator):
    pool = make_pool(generator)
    pool.fill()
    cubes, ids = pool.draw(4, 0)
    again = generator.decode(generator.sample(ids.tolist(), 5, 1, "euler"))
    assert torch.equal(cubes, again)


def test_with_and_without_the_decoded_cache_the_same_cubes(generator):
    one, two = make_pool(generator, cache="on"), make_pool(generator, cache="off")
    assert one.cached and not two.cached and make_pool(generator).cached
    one.fill(), two.fill()
    for step in range(10):
        a, b = one.draw(4, step), two.draw(4, step)
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


@pytest.mark.slow
def test_the_plan_says_what_a_step_will_cost(generator, every_other):
    pool = make_pool(generator, gates=every_other, reuse=2, capacity=64)
    pool.fill()
    words = pool.plan(4)
    owed = 4 / (2 * pool.acceptance)
    assert f"{pool.accepted} of {pool.proposed} proposals admitted" in words and f"owes {owed:.1f} proposals" in words
    before = pool.proposed
    for step in range(100):
        pool.draw(4, step)
    owed = 4 / (2 * pool.accepted / pool.proposed)  # more is known of the acceptance by now
    assert (pool.proposed - before) / 100 == pytest.approx(owed, rel=0.15), "and that is what it costs"


def test_ranks_draw_disjoint_ids(generator):
    drawn = []
    for rank in range(3):
        pool = make_pool(generator, rank=rank, world=3)
        pool.fill()
        drawn.append({i for step in range(30) for i in pool.draw(4, step)[1].tolist()})
    assert not drawn[0] & drawn[1] and not drawn[0] & drawn[2] and not drawn[1] & drawn[2]


def test_resumed_equals_uninterrupted(generator, every_other):
    pool = make_pool(generator, reuse=2, gates=every_other)
    pool.fill()
    for step in range(7):
        pool.draw(4, step)
    state = pool.state_dict()
    expected = [pool.draw(4, step)[1].tolist() for step in range(7, 40)]
    resumed = make_pool(generator, reuse=2, gates=every_other)
    resumed.load_state_dict(state)
    assert [resumed.draw(4, step)[1].tolist() for step in range(7, 40)] == expected
    assert resumed.counters() == pool.counters()


@pytest.mark.slow
@pytest.mark.parametrize("age", [5, 12])
def test_no_cube_is_drawn_beyond_the_age_limit(generator, every_other, age):
    """More are proposed to make up for it, nothing is drawn beyond its limit, and a resumed pool goes on alike."""
    pool = make_pool(generator, reuse=1000, gates=every_other, max_age=age)
    pool.fill()
    first, state, expected = {}, None, []
    for step in range(50):
        if step == 20:
            state = pool.state_dict()
        ids = pool.draw(4, step)[1].tolist()
        expected.append(ids)
        for i in ids:
            assert step - first.setdefault(i, step) <= age
    assert pool.overdrawn == 0 and pool.proposed > 100 and len(pool.draw_count) < 4 * pool.capacity
    resumed = make_pool(generator, reuse=1000, gates=every_other, max_age=age)
    resumed.load_state_dict(state)
    assert [resumed.draw(4, step)[1].tolist() for step in range(20, 50)] == expected[20:]


def test_gates_stand_at_the_door(generator, every_other):
    pool = make_pool(generator, gates=every_other)
    pool.fill()
    for step in range(60):
        cubes, _ = pool.draw(4, step)
        assert every_other(cubes).accept.all()
    assert 0.2 < pool.acceptance < 0.8 and pool.overdrawn == 0
    assert sum(pool.reasons.values()) == pool.proposed - pool.accepted


class Luck:
    """A dataset of empty cubes that admits each with the chance of a coin, by a stream of its own."""

    chunk = 16
    generator = SimpleNamespace(
        hash="luck", bands=1, size=1, device=torch.device("cpu"), decode=lambda tokens: tokens.id
    )

    def __init__(self, seed):
        self.random, self.next = np.random.default_rng(seed), 0

    def chunks(self):
        while True:
            ids = torch.arange(self.next, self.next + self.chunk)[
                torch.from_numpy(self.random.random(self.chunk) < 0.5)
            ]
            self.next += self.chunk
            lost = [(0, "tails")] * (self.chunk - len(ids))
            yield Chunk(Tokens(ids[:, None], ids[:, None], ids, "luck"), None, self.chunk, lost)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_luck_does_not_add_up(seed):
    """Whether the gates admit as planned is a matter of luck from one proposal to the next; over a long run the pool
    neither runs low nor grows."""
    pool = SyntheticPool(Luck(seed), 32, reuse=8, capacity=128, cache="off")
    pool.fill()
    sizes = []
    for step in range(4000):
        pool.draw(32, step)
        sizes.append(len(pool.draw_count))
    assert pool.overdrawn == 0
    assert min(sizes) >= 64 and max(sizes) <= 3 * 128


def test_cubes_resharded_to_more_processes_are_made_up_for(generator):
    """One pool resharded to four: each proposes what it lacks, and draws nothing beyond the limit."""
    one = make_pool(generator, reuse=4)
    one.fill()
    state = one.state_dict()
    for rank in range(4):
        pool = make_pool(generator, reuse=4, rank=rank, world=4)
        pool.load_state_dict(reshard([state], rank, 4))
        pool.settle()
        for step in range(30):
            pool.draw(4, step)
        assert pool.overdrawn == 0


def test_a_gate_that_rejects_everything_stops_with_the_reason(generator):
    never = lambda cubes: Admission(torch.zeros(len(cubes), dtype=torch.bool), ("too dark",) * len(cubes))
    with pytest.raises(GateError, match="too dark"):
        make_pool(generator, gates=never).fill()


def test_a_gate_that_closes_later_overdraws_then_stops(generator):
    class Closing:
        open = True

        def __call__(self, cubes):
            n = len(cubes)
            return Admission(torch.full((n,), self.open), () if self.open else ("shut",) * n)

    gate = Closing()
    pool = make_pool(generator, reuse=2, gates=gate)
    pool.fill()
    gate.open = False
    with pytest.raises(GateError, match=r"ran dry|reject nearly every"):
        all(pool.draw(4, step) for step in range(200))
    assert pool.overdrawn > 0 and pool.draw_count.max() <= 4


def test_state_of_another_generator_is_refused(generator, other_generator):
    pool = make_pool(generator)
    pool.fill()
    other = make_pool(other_generator)
    with pytest.raises(MismatchError, match="another generator"):
        other.load_state_dict(pool.state_dict())


def test_resharded_to_another_number_of_processes(generator):
    pools = [make_pool(generator, rank=r, world=2) for r in range(2)]
    for pool in pools:
        pool.fill()
    states = [p.state_dict() for p in pools]
    before = {i for s in states for i in s["id"].tolist()}
    resharded = [reshard(states, r, 3) for r in range(3)]
    assert {i for s in resharded for i in s["id"].tolist()} == before
    for rank, state in enumerate(resharded):
        pool = make_pool(generator, rank=rank, world=3)
        pool.load_state_dict(state)
        fresh = next(pool.dataset.chunks()).tokens.id
        assert not set(fresh.tolist()) & before, "a new proposal repeats an old id"
