"""What is wrong with a document, as its author wants to read it: the first of pydantic's complaints in one line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from espalier.nas.errors import Code, UserError
from espalier.nas.limits import LIMITS
from espalier.nas.settings import Settings

OUT_OF_RANGE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number", "too_short")
"""Pydantic's names of complaints about numbers, and about lists that are too short."""


BOOLEANS = ("true", "false")
LIKE_BOOLEANS = {"yes": "true", "on": "true", "y": "true", "1": "true"} | dict.fromkeys(
    ("no", "off", "n", "0"), "false"
)
"""What other formats, and older YAML, take for one of them."""


def first_cause(error: ValidationError, schema: type[Settings]) -> UserError:  # noqa: PLR0911 - one for each kind
    """The first complaint about a document of this schema."""
    details: Mapping[str, Any] = error.errors(include_url=False)[0]
    path, holders = _walk([str(part) for part in details["loc"]], schema)
    where = ".".join(path) or "recipe"
    given = details["input"]
    match details["type"]:
        case "extra_forbidden":
            return UserError(where, "unknown key", allowed=_keys(holders), given=path[-1])
        case "missing":
            return UserError(where, "is missing", code="missing")
        case "model_type" | "model_attributes_type":
            inside = [model for holder in holders for model in _sections(holder, path[-1])] if path else [schema]
            return UserError(where, "is a section, with keys inside", code="invalid", allowed=_keys(inside))
        case "literal_error":
            allowed = _listed(details["ctx"]["expected"])
            return UserError(where, f"unknown value {given!r}", allowed=allowed, given=given)
        case "union_tag_invalid":
            tag, allowed = details["ctx"]["tag"], _listed(details["ctx"]["expected_tags"])
            return UserError(where, f"unknown name {tag!r}", allowed=allowed, given=tag)
        case "union_tag_not_found":
            return UserError(f"{where}.name", "is missing", code="missing")
        case "user_error":
            return _complaint(path, details["ctx"])
        case "bool_type":
            meant = LIKE_BOOLEANS.get(str(given).lower())
            return UserError(
                where, f"must be true or false, not {given!r}", code="invalid", allowed=BOOLEANS, given=meant
            )
        case "less_than_equal" if (limit := LIMITS.get(path[-1] if path else "")) and limit.most == details["ctx"][
            "le"
        ]:
            problem = f"must be at most {limit.most:,} ({limit.reason}), not {given!r}"
            return UserError(where, problem, code="out_of_range")
        case kind:
            problem = _in_plain_words(details["msg"])
            # A check of our own says itself what it does not like.
            ending = "" if kind == "value_error" else f", not {given!r}"
            code: Code = "out_of_range" if kind in OUT_OF_RANGE else "invalid"
            return UserError(where, f"{problem[0].lower()}{problem[1:]}{ending}", code=code)


def _in_plain_words(message: str) -> str:
    """A message of pydantic's, which speaks of inputs and tuples, as a user of recipes wants to read it."""
    said = re.sub(r"^(Input|String|Tuple|List) should ", "must ", message.removeprefix("Value error, "))
    return said.replace("valid tuple", "list such as [a, b]").replace(" after validation, not 0", "")


def _complaint(path: Sequence[str], about: Mapping[str, Any]) -> UserError:
    where = ".".join([*path, about["where"].lstrip(".")]).rstrip(".")
    return UserError(where, about["problem"], code=about["code"], allowed=about["allowed"], given=about["given"])


def as_complaint(error: UserError) -> PydanticCustomError:
    """An error found by a validator, which `first_cause` gives back with the path of the validated field before it."""
    about = {"where": error.where, "problem": error.problem, "code": error.code}
    return PydanticCustomError("user_error", "{problem}", {**about, "allowed": error.allowed, "given": error.given})


def _walk(location: Sequence[str], schema: type[Settings]) -> tuple[list[str], list[Any]]:
    """The path in the document, and the models of the section that holds its last key.

    Pydantic names the member of a union after the key that holds it, which is no key of the document.
    """
    path: list[str] = []
    holders: list[Any] = []
    models: list[Any] = [schema]
    for part in location:
        if tagged := [model for model in models if part in _tags(model)]:
            models = tagged
            continue
        path.append(part)
        holders = models
        models = [inner for model in models if part in model.model_fields for inner in _sections(model, part)]
    return path, holders


def _tags(model: Any) -> Sequence[str]:
    """The values of `name` that tell a section from its alternatives."""
    name = model.model_fields.get("name")
    return get_args(name.annotation) if name is not None else ()


def _sections(model: Any, key: str) -> list[Any]:
    """The models of the sections that a key can hold."""
    annotation = model.model_fields[key].annotation
    return [c for c in [annotation, *get_args(annotation)] if inspect.isclass(c) and issubclass(c, Settings)]


def _keys(models: Sequence[Any]) -> list[str]:
    return list(dict.fromkeys(field for model in models for field in model.model_fields))


def _listed(expected: str) -> list[str]:
    return [part.strip(" '") for part in expected.replace(" or ", ", ").split(",")]
