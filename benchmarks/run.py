"""`make bench`: every CPU measurement but the trainings of hours, which `--long` adds, or `--only NAME`.

`make bench DATA=cohort.h5` adds the main job on your own cubes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import figures
from benchmarks.quality import (
    agreement,
    erasure,
    likeness,
    noising,
    packaged,
    physics,
    segmenter,
    sharpness,
    steps,
    temperature,
)
from benchmarks.quality.power import measure as power
from benchmarks.speed import (
    augmentations,
    gates,
    ingest,
    loop,
    mix,
    peers,
    shards,
    stranger,
    streaming,
    supply,
)
from benchmarks.study import base_grid, demo, learning_curves, lightly_loop, real, retina, study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="a cohort file: run the main job on it")
    parser.add_argument("--minutes", type=float, default=10, help="for each of the two trainings on --data")
    parser.add_argument("--only", help="one of the measurements, by name")
    parser.add_argument("--long", action="store_true", help="also the trainings of an hour or more")
    parser.add_argument("--folder", type=Path, default=Path("build/bench"), help="where long trainings are kept")
    args = parser.parse_args()
    jobs = {
        "physics": physics.physics,
        "phantom": physics.speed,
        "ingest": ingest.measure,
        "supply": supply.supply,
        "loop": loop.measure,
        "shards": shards.measure,
        "mix": mix.measure,
        "streaming": streaming.measure,
        "packaged": packaged.packaged,
        "steps": steps.measure,
        "temperature": temperature.measure,
        "noising": noising.measure,
        "peers": peers.measure,
        "agreement": agreement.agreement,
        "augmentations": augmentations.run,
        "gates": gates.measure,
        "sharpness": sharpness.measure,
        "erasure": erasure.measure,
        "demo": demo.measure,
        "segmenter": lambda: segmenter.measure(None),
        "power": power.measure,
    }
    long = {
        "stranger": stranger.measure,
        "lightly_loop": lightly_loop.measure,
        "base_grid": lambda: base_grid.measure(folder=str(args.folder / "base_grid")),
        "learning_curves": learning_curves.measure,
        "study": study.measure,
        "retina224": lambda: retina.measure(args.folder / "retina224"),
    }
    jobs |= {name: job for name, job in long.items() if args.long or args.only == name}
    if args.data:
        jobs["real"] = lambda: real.main_job(args.data, args.minutes)
        jobs["segmenter"] = lambda: segmenter.measure(args.data)
        if likeness.can_compare(args.data):
            jobs["likeness"] = lambda: likeness.measure(args.data)
    if args.only not in (None, "figures", *jobs):
        names = ", ".join([*jobs, *long])
        parser.error(f"--only {args.only}: there are figures, {names}; real, segmenter and likeness need --data")
    for name, job in jobs.items():
        if args.only in (None, name):
            print(f"== {name}", flush=True)
            job()
    if args.only == "figures":
        figures.write()


if __name__ == "__main__":
    main()
