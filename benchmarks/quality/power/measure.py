"""What the gates catch: planted faults x gates at several set sizes: `python -m benchmarks.quality.power.measure`.

A bank of simulated eyes is made once; each fault is applied and its rows, pictures' similarities and outcomes at the
per-cube gates are computed once; then every repetition draws patients from the bank, one eye each, as a generator's
samples are independent, and asks for a verdict. Nothing is measured on cubes that the gates were calibrated on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks import RESULTS
from benchmarks.common import record
from benchmarks.quality.power.faults import CHANGES, FORMS, LOSSES, Eyes
from benchmarks.quality.power.plain import PLAIN, Plain
from benchmarks.quality.power.stocks import POOL, Stock, file_of, load, save, some_of, stock_of
from synthgen.contracts import Status, Verdict
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.cubes.cohort.splits import load_or_make_split
from synthgen.cubes.phantom.cohort import simulate_cohort
from synthgen.quality.gates import Gates, load_gates
from synthgen.quality.sets.table import Rows
from synthgen.runs.progress import progress
from synthgen.runs.randomness import numpy_stream
from synthgen.science.intervals import exact_interval

BANK_SEED, FRESH_SEED = 31, 32
SIZES, MORE = (50, 200, 1000), (100, 400, 700)  # the latter to find the smallest size that catches a fault
COPIES = {"1 % copies": 0.01, "5 % copies": 0.05, "a single copy": 0.0}
CAUGHT = 0.9
CACHE = Path(tempfile.gettempdir()) / "synthgen_power"
FRESH_PATIENTS, ALARM_SETS = 6000, (60, 240)  # about 55 and 220 of which are admitted: 200 and 50 disjoint sets
SMALLEST = "smallest size that catches 90 %"
BUT_FOR_PROPOSALS = "passed but for the number of proposals"
_CHUNK = 128


def judge_fault(job: tuple[str, str, int, int, int, str]) -> tuple[str, int, Counter, Counter, int]:
    """All repetitions of one fault at one size: how often each check failed, each status, and single copies caught."""
    folder, name, n, first, repeats, gates_name = job
    _one_thread()
    gates = load_gates(gates_name)
    base = load(folder, "none" if name in COPIES else name)
    extra = load(folder, "copies") if name in COPIES else None
    failed, states, caught = Counter(), Counter(), 0
    for k in range(first, first + repeats):
        rng = numpy_stream("power", name, n, k)
        copies = 0 if extra is None else max(1, round(COPIES[name] * n))
        rows, acceptance, generic, coordinates = base.draw(n, rng, extra, copies)
        verdict = gates.certify(rows, acceptance, base.pictures(gates.images, rng))
        _count(verdict, failed, states)
        caught += copies > 0 and acceptance.copies >= copies
        failed.update(PLAIN.verdicts(folder, generic, coordinates))
    return name, n, failed, states, caught


def study(
    gates_name: str, training: str, patients: int, repeats: int, cache: Path, workers: int, sizes=SIZES, only=()
) -> dict:
    """Make the bank, judge every fault once, then repeat; records and returns the figures.

    `only`: these faults anew, the others as the newest record of the same gates has them.
    """
    gates = load_gates(gates_name)
    bank = _cohort(cache, BANK_SEED, patients)
    train = Cohort.open(training)
    known = train.index_of(load_or_make_split(train).train)
    cache = _own(cache, gates)
    plain = PLAIN.fit(gates, train, known, cache)
    before = json.loads((RESULTS / "power.json").read_text())[-1] if only else {"faults": {}, "gates": gates.hash}
    if before["gates"] != gates.hash:
        raise SystemExit("the newest record is of other gates: run every fault")
    _stocks(gates, bank, plain, cache, only)
    forms = _copies(gates, torch.from_numpy(train.cubes(known)), plain, cache)
    faults = [f for f in (*CHANGES, *LOSSES, *COPIES) if not only or f in only]
    found = _repeat(cache, gates_name, faults, sizes, repeats, workers)
    late = [f for f in faults if f != "none" and _share(found[f][200], repeats) < CAUGHT] if sizes == SIZES else []
    if late:
        for name, more in _repeat(cache, gates_name, late, MORE, repeats, workers).items():
            found[name] |= more
    value = {
        "gates": gates.hash,
        "bank": {"cubes": len(bank), "patients": len(bank.patients), "seed": BANK_SEED},
        "repetitions": repeats,
        "copies": forms,
        "unseen": _unseen(cache, gates),
        "faults": before["faults"]
        | {name: {str(n): _summary(at, repeats) for n, at in sorted(sizes.items())} for name, sizes in found.items()},
        SMALLEST: before.get(SMALLEST, {}) | {f: _smallest(found[f], repeats) for f in faults if f != "none"},
    }
    record("power", value)
    return value


def false_alarms(gates_name: str, cache: Path, workers: int) -> dict:
    """Real against real: verdicts on disjoint sets of freshly simulated patients, both eyes of each."""
    gates = load_gates(gates_name)
    fresh = _cohort(cache, FRESH_SEED, FRESH_PATIENTS)
    cache = _own(cache, gates)
    if not (cache / "fresh.npz").exists():
        with progress("fresh eyes", len(fresh), "cube") as bar:
            parts = np.array_split(np.arange(len(fresh)), len(fresh) // _CHUNK)
            blocks = (torch.from_numpy(fresh.cubes(i)) for i in parts)
            save(cache, "fresh", stock_of(gates, blocks, fresh.patient_id, PLAIN, bar.advance))
    value = {"gates": gates.hash, "patients": FRESH_PATIENTS, "seed": FRESH_SEED}
    for cubes in ALARM_SETS:
        sets = 2 * FRESH_PATIENTS // cubes
        jobs = [(str(cache), gates_name, cubes, part.tolist()) for part in np.array_split(np.arange(sets), 2 * workers)]
        failed, states = Counter(), Counter()
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for some_failed, some_states in pool.map(judge_fresh, jobs):
                failed += some_failed
                states += some_states
        value[f"sets of {cubes}"] = {"verdicts": sets, **_summary((failed, states, 0), sets)}
    record("false_alarms", value)
    return value


def judge_fresh(job: tuple[str, str, int, list[int]]) -> tuple[Counter, Counter]:
    """Verdicts on the disjoint sets of so many cubes with these numbers."""
    folder, gates_name, cubes, numbers = job
    _one_thread()
    gates, stock = load_gates(gates_name), load(folder, "fresh")
    failed, states = Counter(), Counter()
    for number in numbers:
        which = np.arange(number * cubes, (number + 1) * cubes)  # fellow eyes stand side by side
        rows = stock.rows.take(which[stock.accept[which]])
        verdict = gates.certify(
            rows, stock.acceptance(which), stock.pictures(gates.images, numpy_stream("alarm", number))
        )
        _count(verdict, failed, states)
    return failed, states


def _one_thread() -> None:
    """In a worker: several threads in each of several processes would stand in one another's way."""
    torch.set_num_threads(1)
    threadpool_limits(1)


def _count(verdict: Verdict, failed: Counter, states: Counter) -> None:
    failed.update(c.name for c in verdict.checks if c.status == Status.FAIL)
    states[str(verdict.status)] += 1
    unsure = {c.name for c in verdict.checks if c.status == Status.UNDECIDED} - {"memorization"}
    states[BUT_FOR_PROPOSALS] += verdict.status != Status.FAIL and not unsure


def _own(cache: Path, gates: Gates) -> Path:
    """What these gates computed, apart from what others did."""
    own = cache / gates.hash[:12]
    own.mkdir(exist_ok=True)
    return own


def _cohort(cache: Path, seed: int, patients: int) -> Cohort:
    path = cache / f"phantom64_seed{seed}_{patients}.h5"
    return Cohort.open(path) if path.exists() else simulate_cohort(path, patients=patients, size=64, seed=seed)


def _stocks(gates: Gates, bank: Cohort, plain: Plain, cache: Path, only=()) -> None:
    parts = np.array_split(np.arange(len(bank)), max(1, len(bank) // _CHUNK))
    for name, change in CHANGES.items():
        if (cache / f"{file_of(name)}.npz").exists() or (only and name not in (*only, "none")):
            continue
        with progress(name, len(bank), "cube") as bar:
            blocks = (change(Eyes.read(bank, BANK_SEED, i)) for i in parts)
            save(cache, name, stock_of(gates, blocks, bank.patient_id, plain, bar.advance))
    whole = load(cache, "none")
    for name, keep in LOSSES.items():
        if only and name not in only:
            continue
        kept = np.flatnonzero(keep(bank, BANK_SEED))
        shown = kept[np.sort(numpy_stream("pictures", name).permutation(len(kept))[:POOL])]
        similarity = gates.similarity(torch.from_numpy(bank.cubes(shown)), everything=True)
        save(cache, name, some_of(whole, kept, similarity))


def _copies(gates: Gates, train: torch.Tensor, plain: Plain, cache: Path) -> dict:
    """Every form of every training cube at the per-cube gates: how many are called copies."""
    if (cache / "copies.npz").exists():
        ends = np.cumsum([len(makes) * len(train) for makes in FORMS.values()])[:-1]
        return {k: _caught(flags) for k, flags in zip(FORMS, np.split(load(cache, "copies").copy, ends), strict=True)}
    found, stocks = {}, []
    for name, makes in FORMS.items():
        with progress(name, len(makes) * len(train), "cube") as bar:
            blocks = (part for make in makes for part in make(train).split(_CHUNK))
            stock = stock_of(gates, blocks, np.arange(len(makes) * len(train)), plain, bar.advance)
        found[name] = _caught(stock.copy)
        stocks.append(stock)
    columns = {k: np.concatenate([s.rows[k] for s in stocks]) for k in stocks[0].rows.columns}
    join = lambda key: np.concatenate([getattr(s, key) for s in stocks])
    rows = Rows.of(columns, np.arange(len(join("accept"))), gates.hash)
    names = ("accept", "copy", "score", "pigment", "side", "reasons")
    save(cache, "copies", Stock(rows, *map(join, names), stocks[0].similarity, stocks[0].pool, join("plain")))
    return found


def _caught(flags: np.ndarray) -> dict:
    hits, n = int(flags.sum()), len(flags)
    return {"caught": hits / n, "interval": exact_interval(hits, n), "n": n}


def _unseen(cache: Path, gates: Gates) -> dict:
    """Of the bank as it is: how many fresh cubes each per-cube gate rejects."""
    stock = load(cache, "none")
    n = len(stock.accept)
    why = Counter(str(r) for r in stock.reasons if r)
    return {
        "n": n,
        "called copies": {"share": float(stock.copy.mean()), "interval": exact_interval(int(stock.copy.sum()), n)},
        "alpha": gates.limits.authenticity.alpha,
        "rejected": {"share": float((~stock.accept).mean()), "reasons": dict(why)},
    }


def _repeat(cache: Path, gates_name: str, faults, sizes, repeats: int, workers: int) -> dict:
    jobs = [
        (str(cache), name, n, first, len(part), gates_name)
        for n in sorted(sizes)
        for name in faults
        for part in np.array_split(np.arange(repeats), max(1, repeats // 25))
        if len(part)
        for first in (int(part[0]),)
    ]
    found: dict[str, dict[int, tuple[Counter, Counter, int]]] = {name: {} for name in faults}
    with (
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
        progress("verdicts", len(jobs), "block") as bar,
    ):
        for name, n, failed, states, caught in pool.map(judge_fault, jobs):
            before = found[name].get(n, (Counter(), Counter(), 0))
            found[name][n] = before[0] + failed, before[1] + states, before[2] + caught
            bar.advance(1)
    return found


def _share(at: tuple[Counter, Counter, int], repeats: int) -> float:
    return max(at[1]["fail"], at[2]) / repeats


def _smallest(sizes: dict[int, tuple[Counter, Counter, int]], repeats: int) -> int | str:
    caught = [n for n, at in sorted(sizes.items()) if _share(at, repeats) >= CAUGHT]
    return caught[0] if caught else f"more than {max(sizes)}"


def _summary(at: tuple[Counter, Counter, int], repeats: int) -> dict:
    failed, states, caught = at
    return {
        "failed": states["fail"] / repeats,
        "interval": exact_interval(states["fail"], repeats),
        "undecided": states["undecided"] / repeats,
        BUT_FOR_PROPOSALS: states[BUT_FOR_PROPOSALS] / repeats,
        "all copies rejected by the per-cube gates": caught / repeats,
        "by check": {name: hits / repeats for name, hits in failed.most_common()},
    }


def measure(
    gates: str = "phantom64",
    training: str | None = None,
    patients: int = 2000,
    repeats: int = 100,
    cache: Path = CACHE,
    workers: int = 2,
    sizes: tuple[int, ...] = SIZES,
    only: tuple[str, ...] = (),
) -> None:
    """The whole study; `training` is the cohort of the gates, simulated for the packaged ones if not given."""
    cache.mkdir(parents=True, exist_ok=True)
    training = training or str(_cohort(cache, 0, 512).path)
    study(gates, training, patients, repeats, cache, workers, sizes, only)
    if not only:
        false_alarms(gates, cache, workers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gates", default="phantom64")
    parser.add_argument("--training", help="the cohort that the gates were calibrated on; simulated if not given")
    for name, default in (("--patients", 2000), ("--repeats", 100), ("--workers", 2)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--only", nargs="*", default=[], help="these faults anew, by name; the others stay as recorded")
    args = parser.parse_args()
    sizes, only = tuple(args.sizes), tuple(args.only)
    measure(args.gates, args.training, args.patients, args.repeats, args.cache, args.workers, sizes, only)


if __name__ == "__main__":
    main()
