"""The reference page of the keys of a recipe, and of `nas prune` and `nas quantize`."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Mapping
from typing import Any

from schema_sections import Sections, options_in

HEAD = """\
# Recipe keys

Generated from the schema that recipes are checked with. `nas recipes schema` prints it, and `nas recipes copy` puts it beside
a recipe, so that editors with YAML support complete and check keys.

A key can be set in the recipe or on the command line by its dotted path: `nas run my.yaml search.trials=60`. A section that
is left out is a stage that is not run. Any integer can also be written `{full: F, least: L}`; it is then
`max(L, round(F * scale))`.
"""


def recipe_page() -> str:
    """The page as Markdown."""
    from espalier.recipes.config.json_schema import json_schema

    return "\n".join([HEAD, *Sections(json.loads(json_schema()), _describe).lines()])


def _describe(key: str, name: str) -> Mapping[str, str]:
    """What the docstring of a space, a strategy or a pruning method says of its options."""
    from espalier.recipes.config import registry

    tables: dict[str, Mapping[str, Any]] = {
        "space": registry.SPACES,
        "strategy": registry.STRATEGIES,
        "method": registry.PRUNERS,
    }
    if name not in tables.get(key, {}):
        return {}
    module, _, attribute = tables[key][name].partition(":")
    return options_in(inspect.getdoc(getattr(importlib.import_module(module), attribute)) or "")
