"""The base class of all settings: it checks keys and values, and takes descriptions from docstrings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from espalier.nas.limits import limit_of


def _exact(node: Any, name: str, owner: type[BaseModel]) -> Any:
    """A part of the schema of `owner`, below its key `name`, with exact types and bounded numbers."""
    if isinstance(node, list | tuple):
        return type(node)(_exact(inner, name, owner) for inner in node)
    kind = node.get("type") if isinstance(node, dict) else None
    if (kind is None and not isinstance(node, dict)) or (kind == "model" and node["cls"] is not owner):
        return node  # a plain value, or settings of their own, which have been here themselves
    if kind == "model-fields":
        return {**node, "fields": {key: _exact(field, key, owner) for key, field in node["fields"].items()}}
    if kind == "bool":
        return {**node, "strict": True}
    if kind in ("int", "float"):
        reader = _a_whole_number if kind == "int" else _a_number
        return core_schema.no_info_before_validator_function(reader, _bounded(node, name))
    return {key: inner if key in ("metadata", "serialization") else _exact(inner, name, owner)
            for key, inner in node.items()}  # fmt: skip


def _bounded(node: Mapping[str, Any], name: str) -> Any:
    most = limit_of(name, whole=node["type"] == "int").most
    bounds = {} if "le" in node or "lt" in node else {"le": most}
    return {**node, **bounds} if "ge" in node or "gt" in node else {**node, **bounds, "ge": -most}


def _a_number(value: Any) -> Any:
    """Refuse what Python would take for a number, and its reader would not."""
    if isinstance(value, bool | str | bytes):
        raise PydanticCustomError("no_number", "must be a number")
    return value


def _a_whole_number(value: Any) -> Any:
    """`1e3` is a whole number, too."""
    number = _a_number(value)
    return int(number) if isinstance(number, float) and number.is_integer() else number


class Settings(BaseModel):
    """A section of a recipe. Attribute docstrings become the descriptions of the JSON schema.

    Values are what they say: `true` and `"3"` are no numbers, `1` and `"yes"` neither true nor false. Numbers are
    finite, and no larger than `espalier.nas.limits` allows for the name of their key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The schema of the class with exact types and bounded numbers."""
        schema: CoreSchema = _exact(handler(source), "", cls)
        return schema
