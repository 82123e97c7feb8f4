"""Where the synthetic samples of a batch come from: the pool, or accepted shards read back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from synthgen.contracts import Provenance, Status, Verdict
from synthgen.integration.supply.variants import Variants


class AdmissionState(NamedTuple):
    """Whether synthetic cubes are still admitted.

    failed_at: the step in which the set gates failed the rolling window on some rank, and the reason; None: in none.
    stopped: no cube has been admitted since. verdict: the one that failed, on the rank that gave it.
    """

    failed_at: int | None = None
    reason: str = ""
    stopped: bool = False
    verdict: Verdict | None = None

    @property
    def state(self) -> tuple[int | None, str, bool]:
        """For a checkpoint."""
        return self.failed_at, self.reason, self.stopped


OPEN = AdmissionState()


def admission_of(state: Mapping[str, Any]) -> AdmissionState:
    """The admission state in the state of a pool, of those of earlier versions as well."""
    if "admission" in state:
        return AdmissionState(*state["admission"])
    failed_at = None if state["window"] is None else state["window"]["failed_at"]
    return AdmissionState(failed_at, "", state["stopped_at"] is not None)


class Source(Protocol):
    """Synthetic cubes for batches. held: cubes at hand on this rank."""

    admission: AdmissionState

    @property
    def held(self) -> int: ...

    def draw(self, n: int, step: int) -> tuple[Tensor, Tensor]:
        """Cubes float32 [n, C, H, W] and ids int64 [n] for the batch of `step`."""
        ...

    def preview(self, count: int, seed: int) -> Iterator[Tensor]:
        """At most `count` cubes, always the same, in parts; draws are not disturbed."""
        ...

    def counters(self) -> dict[str, float]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Supply:
    """The synthetic half of the batches: a source, what it was certified as, where it came from; and the variants of
    real cubes, where cross-source views are asked for.
    """

    def __init__(self, source: Source | None, stamp: Status | None, hash: str | None = None):
        self.source, self.certified, self.generator_hash = source, stamp, hash
        self.provenance: tuple[Provenance, ...] = ()
        self.variants: Variants | None = None
        self._reported = False

    def counters(self) -> dict[str, float]:
        """What the metrics show."""
        return {k: v for part in (self.source, self.variants) if part is not None for k, v in part.counters().items()}

    def state_dict(self) -> dict[str, Any]:
        """A rank's own state."""
        parts = {"source": self.source, "variants": self.variants}
        return {name: None if part is None else part.state_dict() for name, part in parts.items()}

    @property
    def admission(self) -> AdmissionState:
        return OPEN if self.source is None else self.source.admission

    @property
    def gates(self) -> str | None:
        """The gates in the metrics: pass, uncertified, 'stopped at step 120'; None without synthetic cubes."""
        if self.admission.failed_at is not None:
            return f"{'stopped' if self.admission.stopped else 'failed'} at step {self.admission.failed_at}"
        return None if self.certified is None else str(self.certified)

    @property
    def stamp(self) -> str | None:
        """What the backbone is stamped with: pass, uncertified, 'uncertified after step 120'."""
        if self.admission.failed_at is not None:
            return f"uncertified after step {self.admission.failed_at}"
        return None if self.certified is None else str(self.certified)

    def news(self) -> str | None:
        """One line, once, when the set gates have failed the window."""
        if self.source is None or self.admission.failed_at is None or self._reported:
            return None
        self._reported = True
        text = f"gates: at step {self.admission.failed_at} {self.admission.reason}; "
        if not self.admission.stopped:
            return f"{text}they are used all the same (--gates report)"
        return (
            f"{text}no more synthetic cubes are admitted. Training goes on from the {self.source.held} at hand, each "
            f"drawn as often as needed; the backbone is stamped '{self.stamp}'"
        )
