"""`make bench`: every CPU measurement. `make bench DATA=cohort.h5` adds the main job on your own cubes."""

from __future__ import annotations

import argparse

from benchmarks import (
    agreement,
    augmentations,
    erasure,
    gates_speed,
    ingest,
    likeness,
    mix,
    noising,
    page,
    peers,
    physics,
    power,
    quality,
    real,
    segmenter,
    shards,
    sharpness,
    speed,
    steps,
    streaming,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="a cohort file: run the main job on it")
    parser.add_argument("--minutes", type=float, default=10, help="for each of the two trainings on --data")
    parser.add_argument("--only", help="one of the measurements, by name")
    args = parser.parse_args()
    jobs = {
        "physics": physics.physics,
        "phantom": physics.speed,
        "ingest": ingest.measure,
        "supply": speed.supply,
        "loop": speed.loop,
        "shards": shards.measure,
        "mix": mix.measure,
        "streaming": streaming.measure,
        "packaged": quality.packaged,
        "steps": steps.measure,
        "noising": noising.measure,
        "peers": peers.measure,
        "agreement": agreement.agreement,
        "augmentations": augmentations.run,
        "gates": gates_speed.measure,
        "sharpness": sharpness.measure,
        "erasure": erasure.measure,
        "segmenter": lambda: segmenter.measure(None),
        "power": power.measure,
    }
    if args.data:
        jobs["real"] = lambda: real.main_job(args.data, args.minutes)
        jobs["segmenter"] = lambda: segmenter.measure(args.data)
        if likeness.can_compare(args.data):
            jobs["likeness"] = lambda: likeness.measure(args.data)
    if args.only not in (None, "page", *jobs):
        parser.error(f"--only {args.only}: there are page, {', '.join(jobs)}; real, segmenter and likeness need --data")
    for name, job in jobs.items():
        if args.only in (None, name):
            print(f"== {name}", flush=True)
            job()
    page.write()


if __name__ == "__main__":
    main()
