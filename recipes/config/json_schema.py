"""The JSON schema of recipes, for editors."""

from __future__ import annotations

import json
from typing import Any

from espalier.recipes.config.schema import Recipe


def json_schema() -> str:
    """The schema as text. Every whole number may also be written `{full: F, least: L}`."""
    schema = Recipe.model_json_schema()
    schema["$defs"]["Scaled"] = {
        "type": "object",
        "properties": {"full": {"type": "number"}, "least": {"type": "integer"}},
        "required": ["full", "least"],
        "additionalProperties": False,
    }
    return json.dumps(_allow_scaled(schema), indent=2)


def _allow_scaled(value: Any) -> Any:
    if isinstance(value, list):
        return [_allow_scaled(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    if value.get("type") == "integer":
        text = {key: value[key] for key in ("title", "description", "default") if key in value}
        number = {key: inner for key, inner in value.items() if key not in text}
        return {**text, "anyOf": [number, {"$ref": "#/$defs/Scaled"}]}
    return {key: inner if key == "Scaled" else _allow_scaled(inner) for key, inner in value.items()}
