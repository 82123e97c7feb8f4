"""What an ingest read, kept and refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pydantic import Field

from synthgen.config import Config
from synthgen.cubes.ingest.quality_control import Check, Finding
from synthgen.errors import InputError


class SourceReport(Config):
    """One file that was read."""

    path: str
    format: str
    variable: str = Field(description="name of the array in the file")
    axes: str = Field(description="order of its axes as stored: N cubes, C bands, H rows, W columns, P pixels")
    dtype: str
    cubes: int = Field(description="cubes in the file")
    kept: int = Field(description="cubes (or patches) written from it")
    full_scale: float = Field(description="stored number of reflectance 1")
    scale_from: str
    declared: tuple[str, ...] = Field(
        default=(), description="what the file states of its numbers: gain, offset, scale, no data"
    )
    applied: tuple[str, ...] = Field(default=(), description="what was applied of it, before the scale")
    not_applied: tuple[str, ...] = Field(default=(), description="what was not, with the reason")
    wavelengths_nm: tuple[float, ...]
    wavelengths_from: str
    resampled: bool


class Refusal(Config):
    """A file, or one cube of it, that was left out."""

    path: str
    cube: int | None = Field(default=None, description="index in the file; none: the whole file")
    check: Check = Field(default="file", description="what it did not pass")
    reason: str


class IngestReport(Config):
    """The whole ingest; written beside the cohort as `<out>.ingest_report.json`."""

    out: str
    kept: int
    patients: int
    height: int
    width: int
    wavelengths_nm: tuple[float, ...]
    sources: tuple[SourceReport, ...]
    refused: tuple[Refusal, ...]
    findings: tuple[Finding, ...] = Field(
        default=(), description="what was noted or repaired in the cubes that were kept"
    )
    steps: tuple[dict[str, Any], ...] = Field(
        default=(), description="every step with its parameters, as kept in the cohort"
    )
    split: dict[str, int] | None = Field(default=None, description="patients of each part; none: too few to split")
    dropped_patches: int = Field(default=0, description="patches with too little field of view")
    no_data_pixels: int = Field(
        default=0, description="pixels left out of the fields of view, marked as missing by their files"
    )
    clipped_above: float = Field(default=0.0, description="fraction of the written values that were above 1")
    clipped_below: float = Field(default=0.0, description="fraction of the written values that were below 0")
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def lines(self, most: int = 6) -> list[str]:
        """The report as text, at most `most` files and notes each; `table` has what the checks found."""
        nm = self.wavelengths_nm
        lines = [
            f"{self.out}: {self.kept} cubes of {self.patients} patients, "
            f"{len(nm)} bands {nm[0]:g}-{nm[-1]:g} nm, {self.height}x{self.width}, {self.seconds:.1f} s"
        ]
        for s in self.sources[:most]:
            nm, resampled = s.wavelengths_nm, ", resampled" if s.resampled else ""
            lines += [
                f"  read {s.path}: {s.format} '{s.variable}' [{s.axes}] {s.dtype}, {s.kept} from {s.cubes} cubes",
                f"    {len(nm)} bands {nm[0]:g}-{nm[-1]:g} nm ({s.wavelengths_from}){resampled}",
                f"    reflectance 1 is {s.full_scale:g} ({s.scale_from})",
            ]
            lines += [f"    declared: {', '.join(s.declared)}"] * bool(s.declared)
            lines += [f"    applied: {'; '.join(s.applied)}"] * bool(s.applied)
            lines += [f"    not applied: {text}" for text in s.not_applied]
        lines += _rest(len(self.sources), most, "files read")
        if self.split is not None:
            lines.append("  split by patient: " + ", ".join(f"{part} {count}" for part, count in self.split.items()))
        if self.dropped_patches:
            lines.append(f"  dropped {self.dropped_patches} patches with too little field of view")
        if self.no_data_pixels:
            lines.append(f"  left {self.no_data_pixels} pixels out of the field of view: no data, as the files declare")
        lines.append(f"  clipped {self.clipped_above:.3%} of the values above 1 and {self.clipped_below:.3%} below 0")
        lines += [f"  note: {note}" for note in self.notes[:most]]
        return lines + _rest(len(self.notes), most, "notes")

    def raise_if_most_refused(self) -> None:
        """InputError, after all is written, when nothing was taken from more than half of the files."""
        kept = {source.path for source in self.sources if source.kept}
        all_ = kept | {source.path for source in self.sources} | {refusal.path for refusal in self.refused}
        if 2 * len(kept) < len(all_):
            raise InputError(
                f"nothing was taken from {len(all_) - len(kept)} of {len(all_)} files; the cohort holds the rest",
                path=self.out,
                remedy=f"the reasons stand above and in {self.out}.ingest_report.json",
            )

    def table(self) -> list[tuple[str, str, int, str]]:
        """Rows (check, outcome, number, first example), refusals first; empty when nothing was found or declared."""
        rows = [(r.check, "refused", r.path, r.cube, r.reason) for r in self.refused]
        for s in self.sources:
            rows += [("declared", "not applied", s.path, None, text) for text in s.not_applied]
            scale = [f"reflectance 1 is {s.full_scale:g}"] * s.scale_from.startswith("file: ")
            done = "; ".join([*s.applied, *scale])
            if s.declared and done:
                rows.append(("declared", "applied", s.path, None, f"{', '.join(s.declared)}: {done}"))
        order = {"repaired": 0, "noted": 1}
        for f in sorted(self.findings, key=lambda f: order[f.outcome]):
            rows.append((f.check, f.outcome, f.path, f.cube, f.reason))
        counts = Counter((check, outcome) for check, outcome, *_ in rows)
        first: dict[tuple[str, str], str] = {}
        for check, outcome, path, cube, reason in rows:
            name = path.rsplit("/", 1)[-1] + ("" if cube is None else f" cube {cube}")
            first.setdefault((check, outcome), f"{name}: {reason}")
        return [(check, outcome, counts[check, outcome], first[check, outcome]) for check, outcome in first]


def print_table(report: IngestReport) -> None:
    """What the checks found, as a table on standard output; nothing where they found nothing."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = report.table()
    if not rows:
        return
    table = Table("check", "outcome", "cubes or files", "first of them", title="quality control", title_justify="left")
    for check, outcome, count, example in rows:
        table.add_row(
            check, outcome, str(count), Text(example)
        )  # a path or a pattern may hold what rich takes for markup
    Console().print(table)


def _rest(count: int, most: int, what: str) -> list[str]:
    return [f"  ... and {count - most} more {what}, listed in the report file"] if count > most else []
