"""The blocks of the documentation, and what the comments before them say about running them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?\s*$")
MARK = re.compile(r"^<!-- ([a-z ]+?)(?:: (.*))? -->$")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: the page, relative to the repository.
        line: where its fence is.
        language: what stands behind the fence.
        file: the file that it is, in the folder of the reader; empty if none.
        text: what is in it.
        marks: the comments right before it, such as `{"run with": "--dry-run"}`.
    """

    page: str
    line: int
    language: str
    file: str
    text: str
    marks: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.page}:{self.line}"

    def commands(self) -> Iterator[list[str]]:
        """The commands of a block of the shell, split into words."""
        for line in self.text.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield [*words, *shlex.split(self.marks.get("run with", ""))]


def blocks(path: Path) -> Iterator[Block]:
    """The blocks of a page in order."""
    lines = path.read_text().splitlines()
    page = path.relative_to(ROOT).as_posix()
    inside: list[str] | None = None
    start, language, file = 0, "", ""
    for number, line in enumerate(lines, 1):
        if inside is None and (match := FENCE.match(line)):
            inside, start, language, file = [], number, match[1], match[2] or ""
        elif inside is not None and line.strip() == "```":
            yield Block(page, start, language, file, "\n".join(inside), _marks(lines[: start - 1]))
            inside = None
        elif inside is not None:
            inside.append(line)


def _marks(before: list[str]) -> dict[str, str]:
    marks = {}
    for line in reversed(before):
        if not (match := MARK.match(line)):
            break
        marks[match[1]] = match[2] or ""
    return marks
