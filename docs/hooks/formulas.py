"""Formulas as MathML, so that pages need no script and no network."""

from __future__ import annotations

import html
import re

FORMULA = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)


def as_mathml(page: str) -> str:
    """The page with each formula that `pymdownx.arithmatex` has marked as MathML."""
    return FORMULA.sub(_formula, page)


def _formula(match: re.Match[str]) -> str:
    from latex2mathml.converter import convert

    text = html.unescape(match[2]).strip()[2:-2].strip()
    text = text.replace(r"\arg", r"\operatorname{arg}\,")  # the converter does not know it
    if match[1] == "span":
        return convert(text)
    return f'<div class="formula">{convert(text, display="block")}</div>'
