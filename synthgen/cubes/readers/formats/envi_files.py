"""Which raw file belongs to which header, by their names: `a.hdr` or `a.raw.hdr` beside `a`, `a.raw`, `a.RFL`, ..."""

from __future__ import annotations

from pathlib import Path

from synthgen.cubes.readers.sniff import HEAD_BYTES, is_raw_header, sniff
from synthgen.errors import InputError

RAW_SUFFIXES = (
    ".raw", ".img", ".dat", ".bsq", ".bil", ".bip", ".bin", ".cube", ".hyspex", ".rfl", ".rad", ".ref", ".refl", ".spe",
    ".float", ".envi", ".lan",
)  # fmt: skip
_HEADERS = (".hdr", ".HDR", ".Hdr")
# What programs put beside an image under its name; never its numbers.
_NO_RAW = {
    ".hdr",
    ".txt",
    ".xml",
    ".json",
    ".csv",
    ".log",
    ".ini",
    ".prj",
    ".stx",
    ".clr",
    ".md",
    ".pdf",
    ".yaml",
    ".yml",
}


def raw_candidates(header: Path) -> list[Path]:
    """The files that may be the raw one of a header: `a.img` of `a.img.hdr`, `a`, `a.img` or any `a.*` of `a.hdr`.

    A name with an ending that is not known stands for the raw file only where there is no other, and only if its
    contents are of no other format.
    """
    stem = header.with_suffix("")
    if stem.suffix.lower() in RAW_SUFFIXES and stem.is_file():
        return [stem]
    endings = [s for suffix in RAW_SUFFIXES for s in (suffix, suffix.upper(), suffix.capitalize())]
    there = [path for path in (stem, *(stem.with_name(stem.name + s) for s in endings)) if path.is_file()]
    # A file system that ignores case shows one file under both names.
    return list({path.resolve(): path for path in reversed(there)}.values())[::-1] or _others(header, stem.name)


def header_of(raw: Path) -> Path | None:
    """The header of a raw file, or None: `<name>.hdr` or `<name without its last part>.hdr`; `.gz` does not count."""
    names = (raw.name, raw.stem) + ((Path(raw.stem).stem,) if raw.suffix.lower() == ".gz" else ())
    for stem in names:
        for suffix in _HEADERS:
            path = raw.with_name(stem + suffix)
            if path != raw and path.is_file() and has_envi_mark(path):
                return path
    return None


def has_envi_mark(path: Path) -> bool:
    """Whether the file begins as a header does: with ENVI's word, or the keywords of ESRI and PSI."""
    try:
        with open(path, "rb") as file:
            return is_raw_header(file.read(HEAD_BYTES))
    except OSError:
        return False


def _others(header: Path, stem: str) -> list[Path]:
    found = []
    for path in sorted(header.parent.iterdir()):
        same = path.name.casefold().startswith(stem.casefold() + ".")
        if same and "." not in path.name[len(stem) + 1 :].removesuffix(".gz") and path.suffix.lower() not in _NO_RAW:
            try:
                if path.is_file() and sniff(path) is None:
                    found.append(path)
            except InputError:
                continue  # not permitted to read
    return found
