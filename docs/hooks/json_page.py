"""The reference page of what `--json` prints."""

from __future__ import annotations


def json_page() -> str:
    """The page as Markdown."""
    return "# JSON outputs\n"
