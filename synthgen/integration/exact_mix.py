"""Batches of any sources in exact shares, for anyone's loop: no generator is needed.

    mix = ExactMix({"real": len(real), "synthetic": len(shards)}, {"synthetic": 0.5}, batch_size=64, seed=0)
    loader = DataLoader(ConcatDataset([real, shards]), batch_sampler=mix, num_workers=4)
    ...
    checkpoint["mix"] = mix.state_dict(done)      # after `done` steps, however far workers have read ahead
    mix.load_state_dict(checkpoint["mix"])        # with as many ranks as then, or others

What holds, by counting and not by chance (docs/supply.md):
- of two sources, every batch has the share of each to within one sample, and so have all batches before any step
  together, on every rank alike (of k sources, to within k - 1);
- each source is walked epoch by epoch: no sample comes again before all of it has come, over all ranks together;
- a resumed run draws what an uninterrupted one would have drawn, bit for bit; with another number of ranks it goes on
  at the same place of every source.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from synthgen.errors import ConfigError, MismatchError
from synthgen.integration.mix import as_ratio
from synthgen.science.epoch_order import rank_order


class ExactMix(Sampler[list[int]]):
    """Batches of positions in the concatenation of the sources, in order; a batch sampler of `DataLoader`.

    Args:
        sizes: samples of each source, by name.
        shares: of a batch, by name, as numbers or fractions ("1/3"); the one that is missing gets the rest.
        batch_size: samples per rank and step.
        steps: batches that an iteration gives; None: without end.
        rank, world: this process, and how many there are.

    Raises ConfigError for shares that do not add up to 1, and sources that are empty and have a share.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        shares: Mapping[str, float | str | Fraction],
        batch_size: int,
        seed: int = 0,
        steps: int | None = None,
        rank: int = 0,
        world: int = 1,
    ):
        if batch_size < 1 or not 0 <= rank < world:
            raise ConfigError("batch size or rank is impossible", found=f"{batch_size}, rank {rank} of {world}")
        self.sizes, self.batch_size, self.seed, self.steps = dict(sizes), batch_size, seed, steps
        self.rank, self.world = rank, world
        self.shares = _shares(self.sizes, shares)
        self.edges = np.concatenate([[0], np.cumsum(list(self.sizes.values()))])
        self.first, self.drawn = (
            0,
            dict.fromkeys(self.sizes, 0),
        )  # the step that counting begins at, and what came before
        self.start = 0

    def __len__(self) -> int:
        if self.steps is None:
            raise TypeError("this mix has no end; give it `steps`")
        return max(0, self.steps - self.start)

    def __iter__(self) -> Iterator[list[int]]:
        step = self.start
        while self.steps is None or step < self.steps:
            yield self.batch(step).tolist()
            step += 1

    def counts(self, step: int) -> dict[str, int]:
        """How many samples of each source are in a batch of `step`, on every rank."""
        before, after = self._before(step), self._before(step + 1)
        return {name: after[name] - before[name] for name in self.sizes}

    def batch(self, step: int) -> np.ndarray:
        """The positions in `step` on this rank, int64 [batch_size]: a pure function, source after source."""
        before, counts = self._before(step), self.counts(step)
        found = []
        for k, (name, size) in enumerate(self.sizes.items()):
            place = {"rank": self.rank, "world": self.world, "start": self.drawn[name]}
            found.append(self.edges[k] + rank_order(size, before[name], counts[name], self.seed, "mix", name, **place))
        return np.concatenate(found)

    def sources(self, positions: np.ndarray | Sequence[int]) -> list[str]:
        """Which source each position is of."""
        names = list(self.sizes)
        return [names[k] for k in np.searchsorted(self.edges, np.asarray(positions), side="right") - 1]

    def fingerprint(self, step: int) -> str:
        """Of the samples of `step` over all ranks: equal where two runs saw the same, in whatever order."""
        ranks = [ExactMix.batch(_as_rank(self, rank), step) for rank in range(self.world)]
        return fingerprint(np.concatenate(ranks))

    def state_dict(self, done: int) -> dict[str, Any]:
        """All that goes on from `done` steps needs. A loader with workers has asked for more: pass what was trained."""
        before = self._before(done)
        drawn = {name: self.drawn[name] + self.world * before[name] for name in self.sizes}
        return {
            "step": done,
            "drawn": drawn,
            "sizes": dict(self.sizes),
            "shares": {name: str(share) for name, share in self.shares.items()},
            "batch_size": self.batch_size,
            "world": self.world,
            "seed": self.seed,
            "first": self.first,
            "drawn_first": dict(self.drawn),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there. With the same ranks and batch to the bit; with others at the same place of every source,
        counting anew from there. MismatchError where sources, shares or seed are others."""
        for key, own in (
            ("sizes", self.sizes),
            ("shares", {name: str(share) for name, share in self.shares.items()}),
            ("seed", self.seed),
        ):
            if state[key] != own:
                raise MismatchError(f"the mix goes on with other {key}", found=own, expected=state[key])
        self.start = state["step"]
        if (state["world"], state["batch_size"]) == (self.world, self.batch_size):
            self.first, self.drawn = state["first"], dict(state["drawn_first"])
        else:
            self.first, self.drawn = state["step"], dict(state["drawn"])

    def _before(self, step: int) -> dict[str, int]:
        """Samples of each source that a rank has drawn from `first` to before `step`; they add up to whole batches.

        The first source gets its share of all samples, the next its share of what is left, and so on: each is rounded
        down from a count that only grows, so no batch is ever asked for less than nothing.
        """
        left, share = self.batch_size * (step - self.first), Fraction(1)
        found = {}
        for name, own in self.shares.items():
            found[name] = floor(left * own / share) if own else 0
            left, share = left - found[name], share - own
        return found


def interleave(mix: ExactMix, sources: Mapping[str, Iterator[Any]]) -> Iterator[list[Any]]:
    """Batches of what iterators give (streams, an `IterableDataset`): as many of each as the mix says, this rank's own.

    Exact in number; which samples come, and resuming them, is the business of the streams.
    """
    step = mix.start
    while mix.steps is None or step < mix.steps:
        yield [next(sources[name]) for name, count in mix.counts(step).items() for _ in range(count)]
        step += 1


def fingerprint(ids: np.ndarray) -> str:
    """16 hexadecimal digits of a set of int64 identities, whatever their order."""
    ordered = np.sort(np.ascontiguousarray(ids, dtype="<i8").ravel())
    return hashlib.blake2b(ordered.tobytes(), digest_size=8).hexdigest()


def _as_rank(mix: ExactMix, rank: int) -> ExactMix:
    other = ExactMix(mix.sizes, mix.shares, mix.batch_size, mix.seed, mix.steps, rank, mix.world)
    other.first, other.drawn = mix.first, mix.drawn
    return other


def _shares(sizes: Mapping[str, int], given: Mapping[str, float | str | Fraction]) -> dict[str, Fraction]:
    """An exact share of each source, in the order of `sizes`."""
    if unknown := given.keys() - sizes.keys():
        raise ConfigError("shares of sources that are not there", found=sorted(unknown), expected=sorted(sizes))
    found = {name: as_ratio(share) for name, share in given.items()}
    rest = [name for name in sizes if name not in given]
    total = sum(found.values(), Fraction(0))
    if len(rest) > 1 or total > 1 or (not rest and total != 1):
        raise ConfigError("the shares do not add up to 1", found={k: str(v) for k, v in found.items()})
    found |= dict.fromkeys(rest, 1 - total)
    for name, share in found.items():
        if share and sizes[name] < 1:
            raise ConfigError("a source of the mix is empty", found=name)
    return {name: found[name] for name in sizes}
