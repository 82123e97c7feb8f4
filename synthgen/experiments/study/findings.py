"""What a study found: paired differences, a table, a picture, and a conclusion in plain words that may be 'no gain'."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field

from synthgen.config import Config
from synthgen.experiments.study.options import (
    ARMS,
    CONTROL,
    MIXED,
    RANDOM,
    REAL,
    REAL_LONGER,
    REAL_MUCH_LONGER,
    SPECTRA,
    Study,
)
from synthgen.experiments.study.plan import GATES, GENERATOR, Outcome, read_outcome, results_folder
from synthgen.integration.pages.run import end_with_report
from synthgen.report.study_plot import study_plot
from synthgen.runs.files import write_json, write_text
from synthgen.ssl.evaluation.paired import compare_seeds

FAMILY = "the interval of each line is its own: of twenty arms that do nothing, one would stand out by chance"


class ArmFound(Config):
    """What one arm reached, over its seeds."""

    arm: str
    what: str
    seeds: tuple[int, ...]
    steps: int = Field(description="optimiser steps, mean over seeds")
    seconds: float = Field(description="wall-clock of the pretraining, mean over seeds")
    aurocs: tuple[float, ...] = Field(description="of the linear probe, one per seed")
    intervals: tuple[tuple[float, float], ...] = Field((), description="95 %, over patients, one per seed")
    knn_auroc: float = Field(description="mean over seeds")
    gates: str | None = None


class Difference(Config):
    """One arm minus another, on the same patients, folds and seeds."""

    first: str
    second: str
    seeds: int
    difference: float
    interval: tuple[float, float] = Field(description="95 %, over patients and seeds")
    conclusion: str = Field(description="better, worse or no gain")


class Findings(Config):
    """Everything that `study.json` holds."""

    study: str
    n_patients: int = 0
    arms: tuple[ArmFound, ...] = ()
    differences: tuple[Difference, ...] = ()
    seconds: dict[str, float] = Field({}, description="of the generator's training and the gates' calibration")
    given_generator: bool = Field(False, description="not trained here: it has seen other patients than the arms")
    generators: int = Field(1, description="trainings of the generator behind the arms")
    same_patients: bool = Field(description="all that was trained here had the same training patients")
    conclusion: tuple[str, ...] = ()

    def of(self, arm: str) -> ArmFound | None:
        return next((found for found in self.arms if found.arm == arm), None)

    def between(self, first: str, second: str) -> Difference | None:
        return next((d for d in self.differences if (d.first, d.second) == (first, second)), None)


def findings_of(study: Study, fingerprint: str) -> Findings:
    """Read every outcome in the study's folder, of this and of earlier sittings, and compare."""
    outcomes = [read_outcome(path, fingerprint) for path in sorted(results_folder(study).glob("*.json"))]
    by_arm: dict[str, dict[int, Outcome]] = {}
    for outcome in outcomes:
        if outcome.arm is not None and outcome.probe is not None:
            by_arm.setdefault(outcome.arm, {})[outcome.seed] = outcome
    by_arm = {name: dict(sorted(by_arm[name].items())) for name in ARMS if name in by_arm}
    pairs = [(name, REAL) for name in by_arm if name != REAL]
    pairs += [(MIXED, REAL_LONGER), (MIXED, REAL_MUCH_LONGER), (MIXED, CONTROL)]
    differences = [d for pair in pairs if (d := _difference(by_arm, *pair, study.probe_seed)) is not None]
    learned = {o.patients for o in outcomes if o.patients is not None}
    made_by = {o.generator for o in outcomes if o.generator and o.arm and ARMS[o.arm].needs_generator}
    found = Findings(
        study=fingerprint,
        n_patients=next((o.probe.n_patients for o in outcomes if o.probe is not None), 0),
        arms=tuple(_arm_found(name, tuple(of.values())) for name, of in by_arm.items()),
        differences=tuple(differences),
        seconds={o.job: o.seconds for o in outcomes if o.job in (GENERATOR, GATES)},
        given_generator=study.given_generator is not None,
        generators=len(made_by),
        same_patients=len(learned) <= 1,
    )
    return found.model_copy(update={"conclusion": tuple(conclusion(found))})


def conclusion(found: Findings) -> list[str]:
    """What the study concludes, in whole sentences; the first answers the question."""
    sentences = []
    main = found.between(MIXED, REAL)
    if main is None:
        sentences = [f"Nothing can be concluded yet: the arms '{REAL}' and '{MIXED}' are needed for it."]
        if (ungated := found.between("gates-off", REAL)) is not None:  # the gates may have refused nearly every cube
            sentences.append(f"Without gates: {ungated.conclusion}, {_line(ungated)}.")
        return sentences
    words = {
        "better": "Synthetic cubes helped at equal optimiser steps",
        "worse": "Synthetic cubes did harm at equal optimiser steps",
        "no gain": "No gain from synthetic cubes at equal optimiser steps",
    }
    sentences.append(
        f"{words[main.conclusion]}: {_line(main)}, over {found.n_patients} patients and {_seeds(main.seeds)}."
    )
    sentences += _chance(found)
    if main.conclusion == "no gain":
        half = (main.interval[1] - main.interval[0]) / 2
        sentences.append(
            f"A difference smaller than about {half:.2f} AUROC could not have been seen with these patients and seeds."
        )
    for other, cost in ((REAL_LONGER, "not counting"), (REAL_MUCH_LONGER, "counting")):
        if (timed := found.between(MIXED, other)) is not None:
            verdict = {"better": "still better", "worse": "worse", "no gain": "no gain"}[timed.conclusion]
            alone = f", {_seeds(1)}" if timed.seeds == 1 else ""
            sentences.append(
                f"At equal wall-clock, {cost} the training of generator and gates: {verdict}, {_line(timed)}{alone}."
            )
    control = found.between(MIXED, CONTROL)
    if control is not None and main.conclusion == "better" and control.conclusion != "better":
        sentences.append(f"A crude simulator did as well ({_line(control)}): the gain is not the generator's merit.")
    elif control is not None:
        sentences.append(f"Against the crude simulator: {control.conclusion}, {_line(control)}.")
    sentences += _floor(found)
    others = [d for d in found.differences if d.second == REAL and d.first not in (MIXED, RANDOM, SPECTRA)]
    stand_out = [f"{d.first} {d.conclusion}" for d in others if d.conclusion != "no gain"]
    if others:
        sentences.append(
            f"Of the {len(others)} other arms against '{REAL}': {', '.join(stand_out) or 'none stands out'}."
        )
        sentences.append(FAMILY[0].upper() + FAMILY[1:] + ".")
    mixed = found.of(MIXED)
    if mixed is not None and mixed.gates not in (None, "pass"):
        sentences.append(f"The gates did not certify the generator: its cubes are stamped '{mixed.gates}'.")
    return sentences + _reservations(found)


def write_findings(study: Study, found: Findings) -> None:
    """`study.json`, `study.md`, `study.png` and the page `report.html` in the study's folder."""
    out = Path(study.out)
    write_json(out / "study.json", found.model_dump(mode="json"))
    write_text(out / "study.md", as_markdown(found))
    reached = [(arm.arm, arm.aurocs) for arm in found.arms]
    differences = [(f"{d.first} - {d.second}", d.difference, d.interval) for d in found.differences]
    study_plot(out / "study.png", reached, differences, found.conclusion[0] if found.conclusion else "")
    end_with_report(out)


def as_markdown(found: Findings) -> str:
    """The page: conclusion, arms, differences."""
    lines = ["# Does it help?", "", *(f"- {sentence}" for sentence in found.conclusion), "", "![study](study.png)", ""]
    lines += ["| arm | what | seeds | steps | minutes | AUROC | kNN |", "|---|---|---|---|---|---|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in _arm_rows(found)]
    lines += ["", "| difference | AUROC | seeds | |", "|---|---|---|---|"]
    lines += [f"| {d.first} - {d.second} | {_value(d)} | {d.seeds} | {d.conclusion} |" for d in found.differences]
    for name, seconds in found.seconds.items():
        lines.append(f"\n{name}: {seconds / 60:.1f} minutes.")
    return "\n".join(lines) + "\n"


def render(found: Findings) -> None:
    """Print the same on the terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    arms = Table(title=f"AUROC per patient, {found.n_patients} patients", title_justify="left")
    for name in ("arm", "what", "seeds", "steps", "minutes", "AUROC", "kNN"):
        arms.add_column(name)
    for row in _arm_rows(found):
        arms.add_row(*row)
    console.print(arms)
    differences = Table(title="Differences, the same patients and seeds on both sides", title_justify="left")
    for name in ("difference", "AUROC [95 %]", "seeds", ""):
        differences.add_column(name)
    for d in found.differences:
        differences.add_row(f"{d.first} - {d.second}", _value(d), str(d.seeds), d.conclusion)
    console.print(differences)
    for sentence in found.conclusion:
        console.print(sentence, highlight=False, soft_wrap=True)


def _difference(by_arm: dict[str, dict[int, Outcome]], first: str, second: str, seed: int) -> Difference | None:
    """Over the seeds that both have; mean spectra have none and stand beside every seed."""
    one, two = by_arm.get(first, {}), by_arm.get(second, {})
    if first == SPECTRA and one:
        one = dict.fromkeys(two, next(iter(one.values())))
    common = [s for s in one if s in two]
    if not common:
        return None
    probes = lambda side: [p for s in common if (p := side[s].probe) is not None]
    made = compare_seeds(probes(one), probes(two), seed)
    return Difference(
        first=first, second=second, seeds=len(common), difference=made.difference, interval=made.interval,
        conclusion=made.conclusion,
    )  # fmt: skip


def _arm_found(name: str, outcomes: tuple[Outcome, ...]) -> ArmFound:
    probes = [o.probe for o in outcomes if o.probe is not None]
    return ArmFound(
        arm=name,
        what=ARMS[name].what,
        seeds=tuple(o.seed for o in outcomes),
        steps=round(np.mean([o.steps for o in outcomes])),
        seconds=float(np.mean([o.seconds for o in outcomes])),
        aurocs=tuple(p.auroc for p in probes),
        intervals=tuple(p.interval for p in probes),
        knn_auroc=float(np.mean([p.knn_auroc for p in probes if p.knn_auroc is not None])),
        gates=outcomes[0].gates,
    )


def _chance(found: Findings) -> list[str]:
    """A difference between two arms that both guess is no evidence about synthetic cubes."""
    arms = [arm for name in (REAL, MIXED) if (arm := found.of(name)) is not None and arm.intervals]
    if not arms or any(np.mean([low for low, _ in arm.intervals]) > 0.5 for arm in arms):
        return []
    reached = ", ".join(f"{arm.arm} {np.mean(arm.aurocs):.2f}" for arm in arms)
    return [f"Neither arm predicts the label better than chance, 0.5 ({reached}): their difference is little evidence."]


def _floor(found: Findings) -> list[str]:
    """What pretraining on real cubes alone does beside the two baselines without it."""
    sentences = []
    for name, words in ((RANDOM, "the untrained network"), (SPECTRA, "LDA on mean spectra")):
        d = found.between(name, REAL)
        if d is not None:
            verdict = {"better": "worse than", "worse": "better than", "no gain": "no better than"}[d.conclusion]
            low, high = d.interval
            sentences.append(
                f"Pretraining on real cubes alone is {verdict} {words} "
                f"({-d.difference:+.2f} AUROC [{-high:+.2f}, {-low:+.2f}])."
            )
    return sentences


def _reservations(found: Findings) -> list[str]:
    """What else could lie behind a difference."""
    sentences = []
    if found.given_generator:
        sentences.append(
            "The generator was given, not trained here: it has seen other patients than the real-only arm, so a gain "
            "could come from their cubes."
        )
    if not found.same_patients:
        sentences.append(
            "Not everything learned from the same patients: the split has changed between jobs, so a difference could "
            "come from the patients. Remove the results of the old split and run those jobs again."
        )
    if found.generators > 1:
        sentences.append(f"Behind the arms are {found.generators} trainings of the generator, not one.")
    return sentences


def _arm_rows(found: Findings) -> list[tuple[str, ...]]:
    return [
        (
            arm.arm,
            arm.what,
            str(len(arm.seeds)),
            str(arm.steps) if ARMS[arm.arm].pretrained else "",
            f"{arm.seconds / 60:.1f}" if ARMS[arm.arm].pretrained else "",
            f"{np.mean(arm.aurocs):.3f}" + (f" ± {np.std(arm.aurocs, ddof=1):.3f}" if len(arm.aurocs) > 1 else ""),
            f"{arm.knn_auroc:.3f}",
        )
        for arm in found.arms
    ]


def _value(d: Difference) -> str:
    return f"{d.difference:+.3f} [{d.interval[0]:+.3f}, {d.interval[1]:+.3f}]"


def _line(d: Difference) -> str:
    return f"{d.first} minus {d.second} {d.difference:+.2f} AUROC [{d.interval[0]:+.2f}, {d.interval[1]:+.2f}]"


def _seeds(n: int) -> str:
    return f"{n} seeds" if n > 1 else "one seed (the interval is over patients alone)"
