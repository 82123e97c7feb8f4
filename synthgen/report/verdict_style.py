"""The words and the look of a verdict page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WORDS = {"pass": "passed", "fail": "failed", "undecided": "undecided"}
AT_LEAST = ("acceptance", "acceptance_per_stratum", "tilt_retained", "tilt_retained_half")  # larger is better
_LABELS = {
    "memorization": "Fraction of copies of training cubes",
    "copies": "Fraction of copies of training cubes",
    "copying_ct": "Nearer to training than unseen eyes are (C_T)",
    "memorization_of_real": "Fraction of copies of the real cohort",
    "copies_of_real": "Fraction of copies of the real cohort",
    "acceptance": "Fraction admitted one by one",
    "acceptance_per_stratum": "Acceptance of the worst stratum",
    "plausibility": "Plausibility of single cubes",
    "tilt_retained": "Tilt at 450-585 nm left by the autoencoder",
    "tilt_retained_half": "The same tilt in half of the field",
    "repeats": "Fraction of exact repeats",
    "set": "Set of cubes",
}
_SPACES = {
    "joint": "Learned features and structures",
    "encoder": "Learned features",
    "spectra": "Plain spectra",
    "structures": "Structures",
}
_STRUCTURES = {"artery": "Arteries", "vein": "Veins", "disc": "Optic disc", "background": "Background"}
_PARTS = {
    "frechet_ratio": "Fréchet ratio to real against real",
    "frechet": "Fréchet distance",
    "kid": "kernel distance (KID)",
    "coverage": "real cubes with none near",
    "vendi": "diversity lost (Vendi)",
    "level": "level of the spectrum",
    "shape": "shape of the spectrum",
    "spectrum": "shift of the spectrum",
    "contrast": "contrast to the surroundings",
    "extent": "extent",
}


def label_of(name: str) -> str:
    """The name of a check in words."""
    if name.startswith("ms_ssim"):
        return "Diversity: difference of mean MS-SSIM"
    if name in _LABELS:
        return _LABELS[name]
    who, _, part = name.partition("_")
    owner = _SPACES.get(who) or _STRUCTURES.get(who)
    if owner and not part:
        return owner
    return f"{owner}: {_PARTS[part]}" if owner and part in _PARTS else name.replace("_", " ").capitalize()


def by_status(checks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What stands in the way first."""
    order = ("fail", "undecided", "pass", "absent")
    place = {status: k for k, status in enumerate(order)}
    return sorted(checks, key=lambda c: place.get(str(c["status"]), len(order)))


def by_owner(checks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Feature spaces first, then diversity, then structure by structure."""
    order = (*_SPACES, "ms", *_STRUCTURES)
    place = {name: k for k, name in enumerate(order)}
    return sorted(checks, key=lambda c: place.get(c["name"].partition("_")[0], len(order)))


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def in_words(verdict: Mapping[str, Any]) -> str:
    """The verdict in one or two sentences."""
    checks, status = verdict["checks"], str(verdict["status"])
    by = {s: [label_of(c["name"]) for c in checks if str(c["status"]) == s] for s in ("fail", "undecided", "absent")}
    judged = sum(str(c["status"]) != "absent" for c in checks)
    if status == "pass":
        summary = f"All {judged} checks lie within their limits."
    elif status == "fail":
        summary = f"{len(by['fail'])} of {judged} checks lie beyond their limits: {_listed(by['fail'])}."
    else:
        summary = f"{len(by['undecided'])} of {judged} checks cannot be decided: {_listed(by['undecided'])}."
    if by["absent"]:
        summary += f" Not found in enough cubes to compare: {_listed(by['absent'])}."
    return summary


def _listed(names: list[str]) -> str:
    shown = "; ".join(n[0].lower() + n[1:] if not n.startswith("MS") else n for n in names[:5])
    return shown + (f"; and {len(names) - 5} more" if len(names) > 5 else "")


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { margin: 0; background: #f6f7f8; color: #1d2530;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 24px; }
header, section { background: #fff; border: 1px solid #e3e6ea; border-radius: 8px; padding: 20px 24px;
  margin-bottom: 18px; }
header { border-left: 8px solid #7a8793; }
header.pass { border-left-color: #2e7d4f; } header.fail { border-left-color: #c0392b; }
header.undecided { border-left-color: #b7791f; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 0 0 6px; } h3 { font-size: 15px; margin: 0 0 4px; text-transform: capitalize; }
figure h3 { text-transform: none; } h3::first-letter { text-transform: uppercase; }
.sentence { font-size: 17px; margin: 0 0 12px; } .lead { color: #4a5563; margin: 0 0 12px; max-width: 85ch; }
.note { margin: 6px 0; padding: 8px 12px; background: #fff8e8; border-left: 4px solid #d9a62e; }
dl { display: flex; flex-wrap: wrap; gap: 10px 28px; margin: 0; } dt { color: #5c6875; font-size: 13px; }
dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; margin-bottom: 16px; font-size: 14px; }
th, td { text-align: left; vertical-align: top; padding: 7px 10px; border-bottom: 1px solid #e8ebee; }
thead th { color: #5c6875; font-weight: 600; font-size: 13px; } tbody th { font-weight: 600; }
th small { display: block; color: #7a8793; font-weight: 400; font-family: ui-monospace, monospace; font-size: 12px; }
td.n { white-space: nowrap; font-variant-numeric: tabular-nums; }
.chip { display: inline-block; padding: 1px 10px; border-radius: 10px; font-size: 13px; font-weight: 600;
  background: #e8ebee; color: #4a5563; }
.chip.pass { background: #def0e5; color: #1f6340; } .chip.fail { background: #fae1de; color: #9c2a1e; }
.chip.undecided { background: #fbeed2; color: #80530f; }
figure { margin: 0; } figcaption { color: #4a5563; font-size: 13px; }
img.figure { max-width: 100%; height: auto; display: block; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); gap: 22px; margin-bottom: 14px; }
.grid img.figure { width: 100%; }
img.figure.wide { width: 100%; max-width: 980px; }
section > img.figure, section > figure > img.figure { width: min(100%, 760px); }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 18px; }
.pair { border: 1px solid #e3e6ea; border-radius: 6px; padding: 10px; }
.pair.flagged { border: 2px solid #c0392b; }
.pair > div { display: grid; grid-template-columns: 1fr 1fr; gap: 8px; margin-bottom: 6px; }
img.cube { width: 100%; aspect-ratio: 1; image-rendering: pixelated; display: block; background: #000; }
.blank { aspect-ratio: 1; background: repeating-linear-gradient(45deg, #f1f3f5 0 8px, #fafbfc 8px 16px); }
small { color: #5c6875; overflow-wrap: anywhere; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); gap: 14px; }
@media print { body { background: #fff; } header, section { break-inside: avoid; border-color: #ccc; } }
</style>
</head>
<body>
<main>
<header class="$status">
<h1>$name: $word</h1>
<p class="sentence">$sentence</p>
<dl>$facts</dl>
$notes
</header>
$body
</main>
</body>
</html>
"""
