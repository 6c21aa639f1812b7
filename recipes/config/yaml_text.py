"""YAML as recipes are written in: the core schema of YAML 1.2, with limits, and without anything surprising.

PyYAML reads YAML 1.1, where `on` is true, `010` is 8, `1:30` is 90 and `1e-3` is a text. Here `1e-3` is a number, `on`,
`yes` and `1:30` are texts, and a number with a leading zero is refused. A key that is given twice is refused, too.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml

from espalier.nas.errors import Code, UserError
from espalier.nas.limits import FILE_BYTES, TEXT, YAML_DEPTH, YAML_VALUES

_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_DIGITS = "-+.0123456789"
_LONGEST_NUMBER = 30
"""Characters of a whole number; 64 bits have 20."""
_TAG = "tag:yaml.org,2002:"


class Reader(yaml.SafeLoader):
    """Reads one document."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's


class Writer(yaml.SafeDumper):
    """Writes texts such that neither YAML 1.1 nor 1.2 takes one for anything else."""


for _kind in (Reader, Writer):
    _kind.add_implicit_resolver(f"{_TAG}bool", _BOOL, list("tTfF"))
    _kind.add_implicit_resolver(f"{_TAG}int", _INT, list("-+0123456789"))
    _kind.add_implicit_resolver(f"{_TAG}float", _FLOAT, list(_DIGITS))
    _kind.add_implicit_resolver(f"{_TAG}null", _NULL, ["~", "n", "N", ""])
Reader.add_implicit_resolver(f"{_TAG}merge", re.compile(r"^<<$"), ["<"])


def parse_yaml(text: str, *, where: str, code: Code = "unreadable") -> Any:
    """The value of a text in YAML: mappings with texts as keys, lists, texts, numbers, true, false and null.

    Args:
        text: one document.
        where: the file or key that holds it.
        code: of the error where it is not YAML.

    Raises:
        UserError: it is not YAML, a key is given twice, or it is beyond the limits of `espalier.nas.limits`.
    """
    try:
        loader = Reader(text)
        try:
            node = loader.get_single_node()
            return None if node is None else _Values(loader, where).of(node)
        finally:
            loader.dispose()
    except RecursionError as error:
        raise UserError(where, f"has more than {YAML_DEPTH} levels", code="out_of_range") from error
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise UserError(where, f"{line}not readable as YAML ({error.problem})", code=code) from error
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(where, f"not readable as YAML ({error})", code=code) from error


def read_text(path: Path) -> str:
    """The text of a YAML file.

    Raises:
        UserError: it cannot be read, is not UTF-8, or is too large for a file that somebody wrote.
    """
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES + 1)
        if len(content) > FILE_BYTES:
            raise UserError(str(path), f"has more than {FILE_BYTES:,} bytes", code="out_of_range")
        return content.decode()
    except UnicodeDecodeError as error:
        raise UserError(str(path), f"is not UTF-8 text ({error.reason})", code="unreadable") from error
    except OSError as error:
        raise UserError(str(path), f"cannot be read: {error.strerror or error}", code="unreadable") from error


def dump_yaml(value: Any, *, flow: bool = False) -> str:
    """YAML that `parse_yaml` reads back.

    Args:
        value: mappings, lists, texts, numbers, booleans and None.
        flow: in one line, with braces and brackets.
    """
    width = math.inf if flow else None
    return yaml.dump(value, Dumper=Writer, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=width)


class _Values:
    """Makes values of the nodes of one document.

    Args:
        loader: that read them.
        where: the file or key that holds the document.
    """

    def __init__(self, loader: Reader, where: str) -> None:
        self._loader = loader
        self._where = where
        self._left = YAML_VALUES

    def of(self, node: yaml.Node, depth: int = 0) -> Any:
        """The value of a node; every use of an anchor counts anew, so that nested aliases come to an end."""
        self._left -= 1
        if self._left < 0:
            problem = f"has more than {YAML_VALUES:,} values, aliases counted as often as they are used"
            raise UserError(self._where, problem, code="out_of_range")
        if depth > YAML_DEPTH:
            problem = f"line {_line(node)}: has more than {YAML_DEPTH} levels, or contains itself"
            raise UserError(self._where, problem, code="out_of_range")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth)
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, "seq")
            return [self.of(inner, depth + 1) for inner in node.value]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        self._check_tag(node, "map")
        lines: dict[str, int] = {}
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge":
                merged |= self._merged(value_node, depth)
                continue
            key = self.of(key_node, depth + 1)
            if not isinstance(key, str):
                problem = f"line {_line(key_node)}: a key is a text, not {key_node.value!r}"
                raise UserError(self._where, problem)
            if key in lines:
                problem = f"the key {key!r} stands in line {lines[key]} and again in line {_line(key_node)}"
                raise UserError(self._where, problem, code="conflict")
            lines[key] = _line(key_node)
            found[key] = self.of(value_node, depth + 1)
        return merged | found

    def _merged(self, node: yaml.Node, depth: int) -> dict[str, Any]:
        """What `<<` brings in: a mapping, or several of which the first that has a key decides."""
        value = self.of(node, depth + 1)
        mappings = value if isinstance(value, list) else [value]
        if not all(isinstance(one, dict) for one in mappings):
            raise UserError(self._where, f"line {_line(node)}: << takes a mapping, or a list of mappings")
        return {key: inner for one in reversed(mappings) for key, inner in one.items()}

    def _scalar(self, node: yaml.Node) -> Any:
        text = str(node.value)
        if len(text) > TEXT:
            problem = f"line {_line(node)}: a text of {len(text):,} characters, more than {TEXT:,}"
            raise UserError(self._where, problem, code="out_of_range")
        match node.tag.removeprefix(_TAG):
            case "str":
                return text
            case "null":
                return None
            case "bool" if _BOOL.match(text):
                return text.lower() == "true"
            case "int" if _INT.match(text):
                return self._whole_number(text, node)
            case "float" if _FLOAT.match(text):
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        raise UserError(self._where, f"line {_line(node)}: {text!r} with the tag {node.tag} cannot be read")

    def _whole_number(self, text: str, node: yaml.Node) -> int:
        digits = text.lstrip("-+")
        if len(digits) > _LONGEST_NUMBER:
            problem = f"line {_line(node)}: a whole number of {len(digits):,} digits, more than {_LONGEST_NUMBER}"
            raise UserError(self._where, problem, code="out_of_range")
        if digits.startswith(("0o", "0x")):
            return int(digits, 0)
        if len(digits) > 1 and digits.startswith("0"):
            plain = digits.lstrip("0") or "0"
            problem = f"line {_line(node)}: {text!r} has a leading zero; write {plain}, or {text!r} for a text"
            raise UserError(self._where, problem)
        return int(text)

    def _check_tag(self, node: yaml.Node, kind: str) -> None:
        if node.tag != f"{_TAG}{kind}":
            raise UserError(self._where, f"line {_line(node)}: the tag {node.tag} cannot be read")


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
