"""Vessels and disc from a few labelled cubes: a linear layer on frozen maps, judged on other patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from synthgen.config import Config
from synthgen.cubes.cohort.cohort import Cohort
from synthgen.errors import InputError
from synthgen.experiments.patient_features import BLOCK
from synthgen.runs.keys import numpy_stream
from synthgen.runs.progress import progress
from synthgen.ssl.backbone import Backbone, standardise
from synthgen.ssl.evaluation.dense import Linear, Maps, apply_linear, dice_of, fit_linear, learned_pixels
from synthgen.ssl.evaluation.intervals import Draws, interval, patient_draws
from synthgen.ssl.evaluation.stages import dense_maps

STRUCTURES = {"vessels": ("artery", "vein"), "disc": ("disc",)}
PIXEL = "spectrum of the pixel"
JUDGED = 100  # patients, one cube of each
REPEATS = 5  # other labelled cubes each time


class DenseReading(Config):
    """Dice of one structure with the maps of one kind, learned from so many cubes."""

    features: str
    structure: str
    labelled: int = Field(description="training cubes, each of another patient")
    dice: float = Field(description="mean over the judged cubes, over draws of the labelled ones, and over seeds")
    interval: tuple[float, float] = Field(description="95 %, over judged patients, draws of labelled cubes and seeds")


class DenseDifference(Config):
    """The first features minus others, learned from the same cubes and judged on the same."""

    features: str
    against: str
    structure: str
    labelled: int
    difference: float
    interval: tuple[float, float] = Field(description="95 %, paired")


class DenseProbe(Config):
    """What a linear layer on each kind of maps finds."""

    n_judged: int
    readings: tuple[DenseReading, ...]
    differences: tuple[DenseDifference, ...] = ()

    def reading(self, features: str, structure: str, labelled: int) -> DenseReading:
        """The reading of these features, this structure and so many labelled cubes."""
        key = (features, structure, labelled)
        return next(r for r in self.readings if (r.features, r.structure, r.labelled) == key)


class _Cubes(NamedTuple):
    """One cube of each patient: index in the cohort, structures bool [n, K, H, W], field of view bool [n, H, W]."""

    index: np.ndarray
    truth: np.ndarray
    field: np.ndarray


def probe_dense(
    cohort: Cohort,
    index: np.ndarray,
    networks: Mapping[str, Sequence[Backbone]],
    labelled: Sequence[int] = (4, 16, 64),
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> DenseProbe:
    """Learn STRUCTURES from `labelled` cubes of other patients than those judged, on the maps of each network.

    A network's maps are all its stages, enlarged to the cube's size; beside them the pixel's own spectrum.

    Args:
        index: cubes of the cohort that nothing has learned from; the first of each patient is used.
        networks: by name; several of one name are seeds, over which a draw goes too.

    Raises InputError where the cohort has no such masks, or too few patients.
    """
    missing = [n for names in STRUCTURES.values() for n in names if n not in cohort.mask_names]
    if missing:
        raise InputError("has no masks to learn from", path=cohort.path, expected=", ".join(missing))
    random = numpy_stream("labelled cubes", seed)
    first = random.permutation(np.unique(cohort.patient_id[index], return_index=True)[1])
    needed = max(labelled) * 2
    if len(first) < needed or min(labelled) < 2:
        raise InputError(
            "too few patients for so many labelled cubes", path=cohort.path, found=f"{len(first)} patients",
            expected=f"{needed}, and from 2 cubes on", remedy="ask for fewer with --dense 4,16",
        )  # fmt: skip
    judged = min(JUDGED, len(first) // 2)
    test, pool = (_cubes(cohort, np.sort(index[some])) for some in (first[:judged], first[judged:]))
    chosen = [random.permutation(len(pool.index))[:count] for count in labelled for _ in range(REPEATS)]
    kinds: dict[str, list[Maps]] = {name: [_maps(one) for one in seeds] for name, seeds in networks.items()}
    standard = next(iter(networks.values()))[0].statistics
    kinds[PIXEL] = [lambda x: standardise(x, standard)]
    dice: dict[str, np.ndarray] = {}
    with progress("dense", sum(map(len, kinds.values())), "network") as bar:
        for name, seeds in kinds.items():
            found = []
            for maps in seeds:
                fits = _fits(cohort, pool, chosen, maps, numpy_stream("labelled pixels", seed), device)
                found.append(_judged(cohort, test, maps, fits, device))
                bar.advance()
            dice[name] = np.stack(found).reshape(len(seeds), len(labelled), REPEATS, judged, len(STRUCTURES))
    return _report(dice, labelled, patient_draws(judged, seed))


def dense_figure_of(found: DenseProbe) -> tuple[list[str], dict[str, list[tuple[float, float, float]]], str]:
    """Lines, bars (Dice, low, high) and the note below them, as `target_figure` takes them."""
    keys = list(dict.fromkeys((r.structure, r.labelled) for r in found.readings))
    bars = {r.features: [found.reading(r.features, *key) for key in keys] for r in found.readings}
    note = f"{found.n_judged} patients judged, a cube of each; {REPEATS} draws of the labelled cubes"
    return [f"{s}, {n} cubes" for s, n in keys], {f: [(r.dice, *r.interval) for r in v] for f, v in bars.items()}, note


def render_dense(found: DenseProbe) -> None:
    """Print Dice by structure and number of labelled cubes, and the first features' differences from the others."""
    from rich.console import Console
    from rich.table import Table

    lines, bars, note = dense_figure_of(found)
    table = Table(title="Dice from a few labelled cubes [95 % interval]", title_justify="left", caption=note)
    for name in ("", *bars):
        table.add_column(name)
    for place, line in enumerate(lines):
        cells = (f"{value:.2f}\n[{low:.2f}, {high:.2f}]" for value, low, high in (v[place] for v in bars.values()))
        table.add_row(line, *cells)
    console = Console()
    console.print(table)
    for d in found.differences:
        line = f"{d.structure}, {d.labelled} cubes: {d.features} minus {d.against} {d.difference:+.3f}"
        console.print(f"{line} [{d.interval[0]:+.3f}, {d.interval[1]:+.3f}]", highlight=False)


def _cubes(cohort: Cohort, index: np.ndarray) -> _Cubes:
    masks = cohort.masks(index)
    truth = np.stack([np.any([masks[n] for n in names], 0) for names in STRUCTURES.values()], 1)
    return _Cubes(index, truth, masks.get("fov", np.ones_like(truth[:, 0])))


def _maps(backbone: Backbone) -> Maps:
    return lambda x: dense_maps(backbone.network, standardise(x, backbone.statistics))


def _fits(
    cohort: Cohort, pool: _Cubes, chosen: Sequence[np.ndarray], maps: Maps, random: np.random.Generator,
    device: torch.device | str,
) -> list[Linear]:  # fmt: skip
    """A fit for each choice of labelled cubes; each cube's pixels are read once."""
    pixels: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    used = np.unique(np.concatenate(chosen))
    for start in range(0, len(used), BLOCK):
        some = used[start : start + BLOCK]
        with torch.no_grad():
            features = maps(torch.from_numpy(cohort.cubes(pool.index[some])).to(device)).flatten(2).cpu().numpy()
        for row, cube in enumerate(some):
            at = learned_pixels(pool.field[cube], random)
            pixels[int(cube)] = features[row][:, at].T, pool.truth[cube].reshape(len(STRUCTURES), -1)[:, at].T
    fits = []
    for cubes in chosen:
        x, y = ([pixels[int(c)][part] for c in cubes] for part in (0, 1))
        owner = np.repeat(np.arange(len(cubes)), [len(part) for part in x])
        fits.append(fit_linear(np.concatenate(x), np.concatenate(y).astype(np.float64), owner))
    return fits


def _judged(cohort: Cohort, test: _Cubes, maps: Maps, fits: Sequence[Linear], device: torch.device | str) -> np.ndarray:
    """Dice [F, n, K] of each fit on every judged cube."""
    found = []
    for start in range(0, len(test.index), BLOCK // 4):
        some = slice(start, start + BLOCK // 4)
        with torch.no_grad():
            predicted = apply_linear(maps(torch.from_numpy(cohort.cubes(test.index[some])).to(device)), fits)
        truth: Tensor = torch.from_numpy(test.truth[some]).to(device)
        field = torch.from_numpy(test.field[some]).to(device)[:, None]
        found.append(np.stack([dice_of(one & field, truth & field) for one in predicted]))
    return np.concatenate(found, 1)


def _report(dice: Mapping[str, np.ndarray], labelled: Sequence[int], draws: Draws) -> DenseProbe:
    """dice [S, L, R, n, K] by features: means, and draws of seed, labelled cubes and judged patients."""
    drawn, value = {}, {}
    for name, found in dice.items():
        seed, repeat = (draws.seed * len(found)).astype(int), (draws.split * REPEATS).astype(int)
        for place, count in enumerate(labelled):
            for k, structure in enumerate(STRUCTURES):
                scores = found[seed, place, repeat][:, :, k]  # [B, n]
                weights = draws.counts * np.isfinite(scores)
                drawn[name, structure, count] = (weights * np.nan_to_num(scores)).sum(1) / weights.sum(1)
                value[name, structure, count] = float(np.nanmean(found[:, place, :, :, k]))
    first, *others = dice
    keys = [(structure, count) for structure in STRUCTURES for count in labelled]
    return DenseProbe(
        n_judged=draws.counts.shape[1],
        readings=tuple(
            DenseReading(features=f, structure=s, labelled=n, dice=value[f, s, n], interval=interval(drawn[f, s, n]))
            for f in dice
            for s, n in keys
        ),
        differences=tuple(
            DenseDifference(
                features=first, against=f, structure=s, labelled=n, difference=value[first, s, n] - value[f, s, n],
                interval=interval(drawn[first, s, n] - drawn[f, s, n]),
            )
            for f in others
            for s, n in keys
        ),
    )  # fmt: skip
