"""The reference page of the keys of a recipe, and of `nas prune` and `nas quantize`."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import Any

from schema_sections import Sections, options_in

HEAD = """\
# Recipe keys

Generated from the schema that recipes are checked with. `nas recipes schema` prints it, and `nas recipes copy`
puts it beside a recipe, so that editors with YAML support complete and check keys.

A key can be set in the recipe or on the command line by its dotted path: `nas run my.yaml search.trials=60`. A section
that is left out is a stage that is not run. Any integer can also be written `{full: F, least: L}`; it is then
`max(L, round(F * scale))`. Wherever a method is named, `FILE.py:NAME`, `package.module:NAME` and the names that
installed packages register are accepted too: see [Extend](../extend/index.md).
"""


def recipe_page() -> str:
    """The page as Markdown."""
    from espalier.recipes.config.json_schema import json_schema

    return "\n".join([HEAD, *Sections(json.loads(json_schema()), _describe).lines()])


PRUNE_HEAD = """\
# Keys of prune and quantize

The settings of `nas prune` and `nas quantize` beside their options, as `key=value` arguments, such as
`nas prune MODEL train.epochs=5`. Generated from the schemas that they are checked with.
"""


def prune_and_quantize_page() -> str:
    """The page of the settings of `nas prune` and `nas quantize` as Markdown."""
    from espalier.recipes.config.prune_settings import PruneSettings
    from espalier.recipes.config.quantize_settings import QuantizeSettings

    return "\n".join(
        [
            PRUNE_HEAD,
            *Sections(PruneSettings.model_json_schema(), _describe, "nas prune", depth=1).lines(),
            *Sections(QuantizeSettings.model_json_schema(), _describe, "nas quantize", depth=1).lines(),
        ]
    )


def _describe(key: str, name: str) -> Mapping[str, str]:
    """What the docstrings of a space, a strategy or a pruning method, and of its bases, say of its options."""
    from espalier.recipes.config import registry

    tables: dict[str, Mapping[str, Any]] = {
        "space": registry.SPACES,
        "strategy": registry.STRATEGIES,
        "method": registry.PRUNERS,
    }
    if name not in tables.get(key, {}):
        return {}
    module, _, attribute = tables[key][name].partition(":")
    described: dict[str, str] = {}
    for base in reversed(getattr(importlib.import_module(module), attribute).__mro__):
        described |= options_in(base.__doc__ or "")
    return described
