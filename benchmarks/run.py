"""`make bench`: every CPU measurement but the trainings of hours, which `--long` adds, or `--only NAME`.

`make bench DATA=cohort.h5` adds the main job on your own cubes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from benchmarks import figures

MEASUREMENTS = {  # name: module and function; imported when its turn comes, some want the peers of `make setup-bench`
    "physics": "quality.physics:physics",
    "phantom": "quality.physics:speed",
    "ingest": "speed.ingest:measure",
    "supply": "speed.supply:supply",
    "loop": "speed.loop:measure",
    "shards": "speed.shards:measure",
    "mix": "speed.mix:measure",
    "streaming": "speed.streaming:measure",
    "packaged": "quality.packaged:packaged",
    "reconstructions": "quality.reconstructions:measure",
    "flows": "study.flows:measure",
    "steps": "quality.steps:measure",
    "temperature": "quality.temperature:measure",
    "noising": "quality.noising:measure",
    "peers": "speed.peers:measure",
    "agreement": "quality.agreement:agreement",
    "augmentations": "speed.augmentations:run",
    "gates": "speed.gates:measure",
    "sharpness": "quality.sharpness:measure",
    "erasure": "quality.erasure:measure",
    "demo": "study.demo:measure",
    "segmenter": "quality.segmenter:measure",
    "power": "quality.power.measure:measure",
}
LONG = {  # hours
    "stranger": "speed.stranger:measure",
    "lightly_loop": "study.lightly_loop:measure",
    "base_grid": "study.base_grid:measure",
    "learning_curves": "study.learning_curves:measure",
    "study": "study.study:measure",
    "retina224": "study.retina:measure",
}
ON_DATA = {
    "real": "study.real:main_job",
    "segmenter": MEASUREMENTS["segmenter"],
    "likeness": "quality.likeness:on_data",
}


def measurement(place: str) -> Callable[..., None]:
    module, _, function = place.partition(":")
    return getattr(import_module(f"benchmarks.{module}"), function)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="a cohort file: run the main job on it")
    parser.add_argument("--minutes", type=float, default=10, help="for each of the two trainings on --data")
    parser.add_argument("--only", help="one of the measurements, by name")
    parser.add_argument("--long", action="store_true", help="also the trainings of an hour or more")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="where long trainings are kept")
    args = parser.parse_args()
    jobs = MEASUREMENTS | {name: job for name, job in LONG.items() if args.long or args.only == name}
    jobs |= ON_DATA if args.data else {}
    if args.only not in (None, "figures", *jobs):
        names = ", ".join([*MEASUREMENTS, *LONG])
        parser.error(f"--only {args.only}: there are figures, {names}; {', '.join(ON_DATA)} need --data")
    settings = {
        "segmenter": {"path": args.data},
        "likeness": {"data": args.data},
        "real": {"data": args.data, "minutes": args.minutes},
        "base_grid": {"folder": str(args.folder / "base_grid")},
        "retina224": {"folder": args.folder / "retina224"},
    }
    for name, job in jobs.items():
        if args.only in (None, name):
            print(f"== {name}", flush=True)
            measurement(job)(**settings.get(name, {}))
    figures.write()


if __name__ == "__main__":
    main()
