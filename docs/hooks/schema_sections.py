"""Tables of keys, generated from the JSON schema of a settings class."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tables import cell, table

Describe = Callable[[str, str], Mapping[str, str]]
"""The descriptions of the options of one member of a union: by the union's key and the member's name."""

SCALED = "/Scaled"
"""The other form of every integer; the head of the page explains it once."""


@dataclass(frozen=True)
class Sections:
    """Writes a table for each section of a schema.

    Args:
        schema: the JSON schema.
        describe: descriptions of options that the schema has none for.
        title: heading of the keys that are in no section.
        depth: levels that the headings of sections are below it.
    """

    schema: Mapping[str, Any]
    describe: Describe
    title: str = "Top level"
    depth: int = 0

    def lines(self) -> Iterator[str]:
        """The top-level keys, then every section below them."""
        yield f"## {self.title}\n"
        yield from self._table(self.schema, {})
        yield from self._below(self.schema, "")

    def _below(self, section: Mapping[str, Any], path: str) -> Iterator[str]:
        for key, value in section.get("properties", {}).items():
            inner = f"{path}.{key}" if path else key
            level = "#" * min(inner.count(".") + 2 + self.depth, 5)
            if members := self._members(value):
                yield f"{level} {inner}\n"
                yield f"{_text(value)}\n"
                for name, member in sorted(members.items()):
                    yield f"{level}# {inner}: {name}\n"
                    descriptions = self.describe(key, name)
                    yield f"{descriptions.get('', '')}\n"
                    yield from self._table(member, descriptions)
            elif target := self._section(value):
                yield f"{level} {inner}\n"
                yield f"{_text(value) or _text(target)}\n"
                yield from self._table(target, {})
                yield from self._below(target, inner)

    def _table(self, section: Mapping[str, Any], descriptions: Mapping[str, str]) -> Iterator[str]:
        required = section.get("required", ())
        rows = [
            (
                f"`{key}`",
                cell(self._kind(value)),
                "required" if key in required else _default(value),
                cell(_text(value) or descriptions.get(key, "") or _text(self._section(value) or {})),
            )
            for key, value in section.get("properties", {}).items()
            if "const" not in value
        ]
        yield table(("key", "values", "default", "meaning"), rows) or "No options.\n"

    def _members(self, value: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """The members of a union told apart by `name`; empty where it is none."""
        found = {}
        for one in (value, *value.get("anyOf", ()), *value.get("oneOf", ())):
            for name, reference in one.get("discriminator", {}).get("mapping", {}).items():
                found[name] = self._resolved({"$ref": reference})
        return found

    def _section(self, value: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The section that a key holds, alone or as an alternative to null."""
        for one in (value, *value.get("anyOf", ())):
            target = self._resolved(one)
            if "properties" in target and "$ref" in one and not one["$ref"].endswith(SCALED):
                return target
        return None

    def _resolved(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        reference = value.get("$ref")
        return value if reference is None else self.schema["$defs"][reference.rpartition("/")[2]]

    def _kind(self, value: Mapping[str, Any]) -> str:
        if self._members(value):
            return "a name or a section, see below"
        if "$ref" in value:
            return "" if value["$ref"].endswith(SCALED) else "section"
        alternatives = value.get("anyOf") or value.get("oneOf")
        if alternatives:
            kinds = [kind for kind in map(self._kind, alternatives) if kind]
            return " or ".join(dict.fromkeys(kinds))
        return self._simple(value)

    def _simple(self, value: Mapping[str, Any]) -> str:
        if "enum" in value:
            return ", ".join(f"`{_plain(one)}`" for one in value["enum"])
        kind = value.get("type")
        if kind == "array":
            inner = [self._kind(one) for one in value.get("prefixItems", [value.get("items", {})])]
            return f"list of {inner[0]}" if len(set(inner)) == 1 and inner[0] else "list"
        named = {"integer": "integer", "number": "number", "boolean": "`true`, `false`", "null": "`null`"}
        text = named.get(str(kind), "path" if value.get("format") == "path" else "text" if kind == "string" else "")
        return text + _range(value)


def _range(value: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {value[key]:g}" for key, sign in signs.items() if key in value]
    return f" {', '.join(limits)}" if limits else ""


def _default(value: Mapping[str, Any]) -> str:
    default = value.get("default")
    if "default" not in value or isinstance(default, dict):
        return ""
    return cell(f"`{_plain(default)}`")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)


def _text(value: Mapping[str, Any]) -> str:
    return " ".join(str(value.get("description", "")).split())


def options_in(docstring: str) -> dict[str, str]:
    """The arguments that a docstring in Google style describes, and its first sentence under the empty name."""
    first, _, rest = inspect.cleandoc(docstring).partition("Args:")
    found = {"": " ".join(first.strip().split("\n\n")[0].split())}
    name = ""
    for line in rest.split("\n\n")[0].splitlines():
        if match := re.match(r"^ {4}(\w+):\s*(.*)$", line):
            name = match[1]
            found[name] = match[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return {key: _sentence(text) for key, text in found.items()}


def _sentence(text: str) -> str:
    """With a capital, unless it begins with a symbol."""
    return text[:1].upper() + text[1:] if re.match(r"[a-z]{3,} |an? ", text) else text
