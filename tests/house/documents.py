"""What the documents say in commands and links, for the tests that hold them against the code."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LAUNCHED = re.compile(r"(?:(?:ACCELERATE_USE_CPU=true )?(?:accelerate launch|torchrun)(?: --[a-z_]+(?: \d+)?)*|python) "
                      r"(pretrain\.py|-m synthgen\S*)(.*)")  # fmt: skip


def blocks(page, language):
    """The fenced blocks of one language in a page."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.S)


def commands(page):
    """Every line of the page's bash blocks, continued lines joined, comments taken off."""
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield shlex.join(words)


def headings(page):
    """The addresses of a page's headings, as GitHub and MkDocs make them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in found}


def links(page):
    """(text, target) of every link and picture that leads to a file of the repository."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for words, target in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            yield words, target
