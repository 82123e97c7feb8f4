"""What MkDocs does besides: the references are written from the code and the README is the first page, so that the site
holds no copy that could grow old; links out of the documentation become the names of the files they lead to."""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

from synthgen.cli.app import app
from synthgen.cli.reference_pages import commands_page, configuration_page, recipe_page

ROOT = Path(__file__).parents[1]
PAGES = {  # files elsewhere in the repository that become pages
    "CHANGELOG.md": "changelog.md",
    "synthgen/generator/packaged/phantom64/README.md": "generator_card.md",
    "synthgen/quality/packaged/phantom64/README.md": "gates_card.md",
    "synthgen/quality/packaged/segmenter/README.md": "segmenter_card.md",
}


def on_files(files, config):
    """Add the pages that are made here."""
    made = {
        "index.md": (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "]("),
        "contributing.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").replace("](docs/", "]("),
        "commands.md": commands_page(app),
        "configuration.md": configuration_page(),
        "recipes.md": recipe_page(ROOT / "configs"),
        **{page: (ROOT / path).read_text(encoding="utf-8") for path, page in PAGES.items()},
    }
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """`[results](../benchmarks/README.md#x)` becomes 'results (`benchmarks/README.md`)'; the comments that say where
    figures come from (benchmarks/figures.py) are left out."""
    known = {f.src_uri for f in files}
    here = posixpath.dirname(page.file.src_uri)

    def instead(found):
        text, target = found[1], found[2].partition("#")[0]
        if not target or re.match(r"[a-z]+:", target) or posixpath.normpath(posixpath.join(here, target)) in known:
            return found[0]
        name = posixpath.normpath(target).removeprefix("../")
        if name in PAGES:
            return f"[{text}]({posixpath.relpath(PAGES[name], here or '.')})"
        return text if name in text else f"{text} (`{name}`)"

    def shown(text):
        text = re.sub(r"<!--(?:=|each |/).*?-->", "", text, flags=re.S)
        return re.sub(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", instead, text)

    fenced = re.split(r"(```.*?```)", markdown, flags=re.S)
    return "".join(part if part.startswith("```") else shown(part) for part in fenced)
