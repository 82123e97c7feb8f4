"""The pool: synthetic cubes made on the training device between steps, kept as tokens, each drawn a few times.

Every rank owns a pool. All ranks propose the same number of cubes at the same steps (nobody waits for a straggler), the
gates judge every proposal, and what is admitted is drawn at random, never twice in one batch, at most `reuse` times
and, where an age limit is set, no longer than so many steps.
When the gates reject more than was planned for, a cube may be drawn up to `2 * reuse` times, which is counted; after
that the run stops with a clear error. The ratio never changes silently.

Where a rolling window watches the pool and its set gates fail on any rank, admission stops on all of them for good: no
cube is proposed any more, and training goes on from what was admitted before. The reuse limit is then lifted; every
draw beyond it is counted (`pool/overdrawn`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from synthgen.contracts import Tokens
from synthgen.errors import GateError, MismatchError
from synthgen.generator.dataset import Chunk, SyntheticRetinaDataset
from synthgen.integration.supply.pool_state import state_of, tokens_of
from synthgen.integration.supply.preview import admitted_tokens
from synthgen.integration.supply.rolling_window import Window
from synthgen.integration.supply.source import OPEN, AdmissionState, admission_of
from synthgen.runs.randomness import numpy_stream

RECKONED = 8  # refills between two agreements of the ranks on acceptance and level
LOWEST_ACCEPTANCE = 0.05  # below this the gates reject practically everything, and the generator is to blame
CACHE_BYTES = 1 << 30  # decoded cubes are cached when the whole pool takes less than this
DROPPED = 4096  # dropped cubes kept as tokens (3 kB each at 224 pixels) under a window, in case admission stops


class SyntheticPool:
    """Tokens of admitted cubes with a reuse limit.

    Args:
        dataset: the source of proposals, in token mode; its gates decide what is admitted.
        per_step: the most synthetic cubes that one batch of this rank takes.
        reuse: how often a cube may be drawn (R). Each draw has fresh augmentations, so this is the analogue of epochs.
        seed, rank: key of the private stream that chooses among the admitted cubes.
        capacity: proposals made before the first step; by default four batches, at least two chunks.
        max_age: steps after which a cube is no longer drawn; more cubes are proposed to make up for it. None: no limit.
        cache: keep decoded cubes beside the tokens, which saves decoding at each draw: "on", "off", or "auto": where
            the whole pool takes less than 1 GiB.
        mean, least: average and smallest of a number over the ranks (itself for one process), so that all plan alike.
        window: the set gates' view of what was admitted; None: nobody watches.
    """

    def __init__(
        self,
        dataset: SyntheticRetinaDataset,
        per_step: int,
        *,
        reuse: int = 8,
        seed: int = 0,
        rank: int = 0,
        capacity: int | None = None,
        max_age: int | None = None,
        cache: Literal["auto", "on", "off"] = "auto",
        mean: Callable[[float], float] = lambda x: x,
        least: Callable[[float], float] = lambda x: x,
        window: Window | None = None,
    ):
        self.dataset, self.per_step, self.reuse, self.seed, self.rank = dataset, per_step, reuse, seed, rank
        self.generator, self.mean, self.least = dataset.generator, mean, least
        self.chunk = dataset.chunk
        wanted = capacity or max(4 * per_step, 2 * self.chunk)
        self.capacity = -(-wanted // self.chunk) * self.chunk
        cube_bytes = 4 * self.generator.bands * self.generator.size**2
        self.max_age = max_age
        self.cached = cache == "on" or (cache == "auto" and 2 * self.capacity * cube_bytes <= CACHE_BYTES)
        self.tokens: Tokens | None = None
        self.cubes: Tensor | None = None
        self.draw_count = np.zeros(0, dtype=np.int64)
        self.admitted_at = np.zeros(0, dtype=np.int64)  # the step in which each was admitted
        self.step = 0
        self.credit, self.acceptance = 0.0, 1.0
        self.proposed = self.accepted = self.drawn = self.overdrawn = self.refills = 0
        self.seconds = 0.0  # spent on proposals by this process since it began
        self.reasons: dict[str, int] = {}
        self.window, self.admission = window, OPEN
        self.dropped: tuple[Tokens, np.ndarray] | None = None
        self._chunks: Iterator[Chunk] | None = None
        self._previewed: tuple[tuple[int, int], list[Tokens]] | None = None

    def fill(self) -> None:
        """Propose `capacity` cubes, and as many more as the gates reject; GateError when hardly any is admitted.

        The second helping follows from the acceptance that the ranks agreed on, so it is equal on every rank.
        """
        while self.proposed < self.capacity and not self.admission.stopped:
            self._admit(0)
        self._agree()
        wanted = self.capacity / self.acceptance
        while self.proposed < wanted and not self.admission.stopped:
            self._admit(0)

    def plan(self, n: float) -> str:
        """What steps with `n` synthetic cubes will cost, from what filling the pool has cost, in words."""
        owed = self._owed(n)
        each = self.seconds / max(self.proposed, 1)
        return (
            f"pool: {self.accepted} of {self.proposed} proposals admitted in {self.seconds:.0f} s; a step that takes "
            f"{n:g} cubes owes {owed:.1f} proposals, {owed * each:.2g} s, a chunk of {self.chunk} every "
            f"{self.chunk / max(owed, 1e-9):.1f} steps"
        )

    def draw(self, n: int, step: int) -> tuple[Tensor, Tensor]:
        """Cubes float32 [n, C, H, W] and ids int64 [n] on the generator's device; refills first when it is due."""
        self.step = step
        self._refill(n, step)
        if n == 0:
            return self._decode(np.zeros(0, dtype=np.int64))
        if self.admission.stopped:
            return self._draw_from_the_rest(n, step)
        candidates = np.flatnonzero(self._live())
        if len(candidates) < n:
            spare = np.flatnonzero(~self._live() & (self.draw_count < 2 * self.reuse))
            spare = spare[np.argsort(self.draw_count[spare], kind="stable")][: n - len(candidates)]
            if len(candidates) + len(spare) < n:
                raise GateError(
                    "the pool ran dry: the gates admit fewer cubes than the loop draws",
                    found=f"{self.accepted} admitted of {self.proposed} proposed",
                    remedy="raise --reuse, lower --synthetic-ratio, or train the generator longer",
                )
            self.overdrawn += len(spare)
            picked = np.concatenate([candidates, spare])
        else:
            picked = numpy_stream(self.seed, "pool", self.rank, step).choice(candidates, n, replace=False)
        return self._take(picked)

    def _draw_from_the_rest(self, n: int, step: int) -> tuple[Tensor, Tensor]:
        """After admission has stopped: those drawn least so far, ties at random."""
        if len(self.draw_count) < n:
            raise GateError(
                "admission of synthetic cubes was stopped before there were enough for a batch",
                found=f"{len(self.draw_count)} admitted",
                expected=f"at least {n} on each process",
                remedy="train the generator longer, or look at its cubes with --gates report",
            )
        order = numpy_stream(self.seed, "pool", self.rank, step).permutation(len(self.draw_count))
        picked = order[np.argsort(self.draw_count[order], kind="stable")[:n]]
        self.overdrawn += int((self.draw_count[picked] >= self.reuse).sum())
        return self._take(picked)

    def _take(self, picked: np.ndarray) -> tuple[Tensor, Tensor]:
        self.draw_count[picked] += 1
        self.drawn += len(picked)
        return self._decode(picked)

    @property
    def held(self) -> int:
        """Cubes at hand."""
        return len(self.draw_count)

    def preview(self, count: int, seed: int) -> Iterator[Tensor]:
        """Up to `count` admitted cubes of a stream of their own, in parts; their tokens are made once and kept."""
        if self._previewed is None or self._previewed[0] != (count, seed):
            self._previewed = (count, seed), admitted_tokens(self.dataset, count, seed)
        for tokens in self._previewed[1]:
            yield self.generator.decode(tokens)

    def counters(self) -> dict[str, float]:
        """What the metrics show of the pool."""
        return {
            "pool/live": int(self._live().sum()),
            "pool/proposed": self.proposed,
            "pool/accepted": self.accepted,
            "pool/acceptance": self.accepted / max(self.proposed, 1),
            "pool/draws_per_id": self.drawn / max(self.accepted, 1),
            "pool/overdrawn": self.overdrawn,
            **({} if self.window is None else self.window.counters()),
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides what is drawn next; tokens, not cubes."""
        dropped = self.dropped
        return {
            "generator": self.generator.hash,
            **state_of(self.tokens, self.draw_count),
            "born": self.admitted_at,
            "credit": self.credit,
            "acceptance": self.acceptance,
            "counts": (self.proposed, self.accepted, self.drawn, self.overdrawn, self.refills),
            "reasons": dict(self.reasons),
            "dataset": self.dataset.state_dict(),
            "admission": self.admission.state,
            "retired": None if dropped is None else state_of(*dropped),
            "window": None if self.window is None else self.window.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`; MismatchError when it belongs to another generator."""
        if state["generator"] != self.generator.hash:
            raise MismatchError(
                "the checkpoint's pool was made by another generator",
                found=state["generator"],
                expected=self.generator.hash,
                remedy="resume with the generator that the run began with",
            )
        self.tokens = self.cubes = None
        self.admission = admission_of(state)
        self.cached = self.cached and not self.admission.stopped
        if state["indices"] is not None:
            self.tokens = tokens_of(state, state["generator"]).to(self.generator.device)
            if self.cached:
                self.cubes = self.generator.decode(self.tokens)
        self.draw_count, self.admitted_at = np.asarray(state["uses"]).copy(), np.asarray(state["born"]).copy()
        self.credit, self.acceptance = state["credit"], state["acceptance"]
        self.proposed, self.accepted, self.drawn, self.overdrawn, self.refills = state["counts"]
        self.reasons = dict(state["reasons"])
        self.dataset.load_state_dict(state["dataset"])
        self.dropped = None
        if (held := state["retired"]) is not None:
            tokens = tokens_of(held, state["generator"]).to(self.generator.device)
            self.dropped = tokens, np.asarray(held["uses"]).copy()
        if self.window is not None and state["window"] is not None:
            self.window.load_state_dict(state["window"])
        self._chunks = None

    def _live(self) -> np.ndarray:
        fresh = self.draw_count < self.reuse
        return fresh if self.max_age is None else fresh & (self.step - self.admitted_at <= self.max_age)

    def _refill(self, n: int, step: int) -> None:
        """Each draw costs 1 / (reuse * acceptance) proposals, and under an age limit the whole pool is to be renewed
        within it; propose a chunk when that much is owed. Acceptance is a matter of luck, and luck adds up: now and
        then what is owed is planned anew, from what the pool lacks.
        """
        if self.admission.stopped or n == 0:
            return
        self.credit += self._owed(n)
        while self.credit >= self.chunk and not self.admission.stopped:
            self.credit -= self.chunk
            self._admit(step)
            self.refills += 1
            if self.refills % RECKONED == 0:
                self._agree()
                self._replan(n)

    def _replan(self, n: float = 0) -> None:
        """Owe what it takes that `capacity` cubes are left when this step's `n` are drawn, on the poorest rank.

        Under an age limit cubes go unused, and what was used up does not tell what is left.
        """
        if self.max_age is None:
            lacking = self.capacity + (self.drawn + n) / self.reuse - self.least(self.accepted)
            self.credit = lacking / self.acceptance

    def settle(self) -> None:
        """After a reshard to another number of processes: agree, and owe what is lacking now."""
        self._agree()
        self._replan()

    def _owed(self, n: float) -> float:
        """Proposals that a step with `n` cubes uses up, on average."""
        wanted = n / self.reuse if self.max_age is None else max(n / self.reuse, self.capacity / self.max_age)
        return wanted / self.acceptance

    def _agree(self) -> None:
        self.acceptance = self.mean(self.accepted / max(self.proposed, 1))
        if self.acceptance < LOWEST_ACCEPTANCE:
            worst = ", ".join(f"{k} ({v})" for k, v in sorted(self.reasons.items(), key=lambda kv: -kv[1])[:3])
            raise GateError(
                "the gates reject nearly every synthetic cube",
                found=f"{self.accepted} admitted of {self.proposed} proposed; reasons: {worst}",
                remedy="train the generator longer, or calibrate gates on the same data; --gates off admits all",
            )

    def _admit(self, step: int) -> None:
        """Take one chunk of proposals from the dataset, keep the admitted ones, and let the window look when it is due.

        Every rank takes its chunks at the same steps, so all of them meet in `mean`.
        """
        chunk = self._propose(step)
        if self.window is None:
            return
        if chunk.admission is not None:
            self.window.add(chunk.admission, chunk.tokens)
        if self.window.due:
            self.window.look()
        if self.admission.failed_at is None and self.mean(float(self.window.failed)) > 0:
            verdict = self.window.verdict if self.window.failed else None
            why = "on another process" if verdict is None else verdict.reason
            reason = f"the set gates failed the last {len(self.window.rows)} admitted cubes ({why})"
            self.admission = AdmissionState(step, reason, self.window.closes, verdict)
            if self.admission.stopped:
                self._stop()

    def _stop(self) -> None:
        """No more proposals; what was used up may be drawn again."""
        if self.dropped is not None and self.tokens is not None:
            tokens, draw_count = self.dropped
            self.tokens = Tokens.cat([tokens, self.tokens])
            self.draw_count = np.concatenate([draw_count, self.draw_count])
            self.admitted_at = np.concatenate([np.zeros_like(draw_count), self.admitted_at])
        self.cubes, self.dropped, self.cached = None, None, False

    def _propose(self, step: int) -> Chunk:
        """Take one chunk of proposals from the dataset and keep the admitted ones; drop those used up."""
        if self._chunks is None:
            self._chunks = self.dataset.chunks()
        clock = time.monotonic()
        chunk = next(self._chunks)
        self.seconds += time.monotonic() - clock
        self.proposed += chunk.proposed
        self.accepted += len(chunk.tokens)
        for _, reason in chunk.rejected:
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
        if not len(chunk.tokens):
            return chunk
        cubes = None
        if self.cached:
            cubes = chunk.cubes if chunk.cubes is not None else self.generator.decode(chunk.tokens)
        keep = np.flatnonzero(self._live())
        if len(keep) < self.per_step:  # keep the used-up ones as a reserve until there are enough fresh ones
            keep = np.flatnonzero(self.draw_count < 2 * self.reuse)
        self._drop(keep)
        if self.tokens is None or not len(keep):
            self.tokens, self.cubes = chunk.tokens, cubes
        else:
            which = torch.from_numpy(keep)
            self.tokens = Tokens.cat([self.tokens[which], chunk.tokens])
            self.cubes = None if cubes is None or self.cubes is None else torch.cat([self.cubes[which], cubes])
        self.draw_count = np.concatenate([self.draw_count[keep], np.zeros(len(chunk.tokens), dtype=np.int64)])
        self.admitted_at = np.concatenate([self.admitted_at[keep], np.full(len(chunk.tokens), step)])
        return chunk

    def _drop(self, keep: np.ndarray) -> None:
        """Under a window that may stop admission, the tokens of what is dropped are kept."""
        if self.window is None or not self.window.closes or self.tokens is None:
            return
        gone = np.setdiff1d(np.arange(len(self.draw_count)), keep)
        tokens, draw_count = self.tokens[torch.from_numpy(gone)], self.draw_count[gone]
        if self.dropped is not None:
            tokens, draw_count = Tokens.cat([self.dropped[0], tokens]), np.concatenate([self.dropped[1], draw_count])
        self.dropped = tokens[-DROPPED:], draw_count[-DROPPED:]

    def _decode(self, picked: np.ndarray) -> tuple[Tensor, Tensor]:
        assert self.tokens is not None, "fill() comes first"
        which = torch.from_numpy(picked)
        tokens = self.tokens[which]
        return (self.cubes[which] if self.cubes is not None else self.generator.decode(tokens)), tokens.id
