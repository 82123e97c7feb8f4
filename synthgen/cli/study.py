"""The commands that answer whether it helped: `synthgen probe` and `synthgen study`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from synthgen.cli.shared import PRETRAINING, command

if TYPE_CHECKING:
    from synthgen.experiments.probe_backbone import ProbeReport
    from synthgen.experiments.study.findings import Findings
    from synthgen.experiments.target_probe import TargetProbe


def add_to(app: typer.Typer) -> None:
    """Give the command line these commands."""

    @command(app, PRETRAINING, "synthgen.experiments.probe:probe")
    def probe(report: ProbeReport | TargetProbe, as_json: bool) -> None:
        """Probe a backbone for the label, on unseen patients, and for what else it predicts.

        With --targets: numbers and classes by nested cross-validation, beside untrained networks and spectra.

        Example: synthgen probe --backbone runs/x --data eyes.h5 --targets age,melanin --out runs/x/probe
        """
        from synthgen.experiments.probe_backbone import ProbeReport, render_table
        from synthgen.experiments.target_probe import render_targets

        if as_json:
            typer.echo(report.model_dump_json(indent=2))
        elif isinstance(report, ProbeReport):
            render_table(report)
        else:
            render_targets(report)

    @command(app, PRETRAINING, "synthgen.experiments.study.run:run_study")
    def study(result: Findings) -> None:
        """Do synthetic cubes help? Arms, seeds, a conclusion.

        Example: synthgen study --config configs/study.yaml
        """
        from synthgen.experiments.study.findings import render

        render(result)
