"""A method and its options, as a section of a recipe or as text: `{name: darts, cells: 6}`, `darts:cells=6`.

The options are the keyword-only arguments of the method's constructor, of the platform's and of own methods alike.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_type_hints

from pydantic import ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError, create_model
from pydantic_core import CoreSchema, core_schema

from espalier.nas.errors import UserError
from espalier.nas.settings import Settings
from espalier.recipes.config.roles import Role, load
from espalier.recipes.config.validation_errors import as_complaint, first_cause
from espalier.recipes.config.yaml_text import parse_yaml

OWN_PATTERN = r"^.+\.py:\w+$|^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
"""What `FILE.py:NAME` and `package.module:NAME` match, for editors."""


class OwnSettings(Settings):
    """The name and options of a method that is not the platform's."""

    model_config = ConfigDict(arbitrary_types_allowed=True)  # its annotations may be of any type

    name: str
    """Where it is: the name of an entry point, `FILE.py:NAME` or `package.module:NAME`."""

    def __str__(self) -> str:
        return self.name


def options_of(role: Role, name: str, *, without: Sequence[str] = ()) -> Any:
    """The settings of a method: its name, and the keyword-only arguments of its constructor.

    Args:
        role: what it is.
        name: one of the role.
        without: arguments that are not the user's to set.

    Raises:
        UserError: there is no such method, or it has an option that is called `name`.
    """
    return _schema(role, name, load(role, name, where="name"), tuple(without))


@functools.cache
def _schema(role: Role, name: str, found: Any, without: tuple[str, ...]) -> Any:
    """Made once for each class, so that equal settings are equal."""
    types = _types(found)
    options: dict[str, Any] = {
        p.name: (types.get(p.name, Any) | None, None) if p.default is None else (types.get(p.name, Any), _default(p))
        for p in inspect.signature(found).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name not in without
    }
    if "name" in options:
        raise UserError(name, "has an option called name, which is the key of the method's own name", code="user_code")
    base = Settings if name in role else OwnSettings
    title = role.title.replace(" ", "_")
    return create_model(f"{name}_{title}", __base__=base, **{"name": (Literal[name], ...), **options})


def checked_options(role: Role, section: Mapping[str, Any], *, without: Sequence[str] = ()) -> Any:
    """The settings of a method that is not the platform's, from its section.

    Raises:
        UserError: an option is unknown, missing or wrong; `where` is its key inside the section.
    """
    name = str(section["name"])
    schema = options_of(role, name, without=without)
    try:
        return schema.model_validate(section)
    except ValidationError as error:
        cause = first_cause(error, schema)
        raise _with_owner(role, name, cause, where=cause.where) from error


def options_from_text(role: Role, text: str, *, where: str, without: Sequence[str] = ()) -> tuple[str, dict[str, Any]]:
    """The name and all options of the method `NAME` or `NAME:key=value,key=value`.

    Args:
        role: what it is.
        text: what the user wrote.
        where: the option or key that holds it.
        without: see `options_of`.

    Raises:
        UserError: no such method or option.
    """
    name, options = role.split(text)
    load(role, name, where=where)
    pairs: dict[str, Any] = {}
    for option in filter(None, _between_commas(options)):
        key, equals, value = option.partition("=")
        if not equals:
            raise UserError(where, f"{option!r} is not of the form key=value")
        if key in pairs:
            raise UserError(f"{where}.{key}", "is given twice", code="conflict")
        pairs[key] = parse_yaml(value, where=f"{where}.{key}", code="invalid")
    schema = options_of(role, name, without=without)
    try:
        settings = schema.model_validate({"name": name, **pairs})
    except ValidationError as error:
        cause = first_cause(error, schema)
        raise _with_owner(role, name, cause, where=f"{where}.{cause.where}") from error
    return name, given_options(settings)


def _with_owner(role: Role, name: str, cause: UserError, *, where: str) -> UserError:
    """An error about an option, which names the method if it is not the platform's."""
    problem = cause.problem if name in role else f"{cause.problem} (of {name})"
    allowed = None if cause.allowed is None else [key for key in cause.allowed if key != "name"]
    return UserError(where, problem, code=cause.code, allowed=allowed, given=cause.nearest)


def given_options(settings: Settings) -> dict[str, Any]:
    """The options of a checked section, by name."""
    return settings.model_dump(exclude={"name"})


@dataclass(frozen=True)
class Named:
    """Marks a field that names a method of a role: one of the platform's, which the field's type checks, or an own.

    Attributes:
        role: what it is.
        without: arguments of its constructor that are not the user's to set.
        more: names that the field's type takes beside those of the role.
        as_text: the platform's are given by their bare names, and have no options.
    """

    role: Role
    without: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    as_text: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(
            self._validate, handler(source), serialization=core_schema.simple_ser_schema("any")
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        own = {"type": "string", "pattern": OWN_PATTERN}
        section = {"type": "object", "properties": {"name": own}, "required": ["name"]}
        ours = [handler(schema)] if self.as_text else [{"enum": [*self.role, *self.more]}, handler(schema)]
        return {"anyOf": [*ours, own, section]}

    def _validate(self, value: Any, handler: Any) -> Any:
        if isinstance(value, Settings):
            return value
        section = self._section(value)
        name = section.get("name") if isinstance(section, Mapping) else None
        if not isinstance(name, str) or name in (*self.role, *self.more):
            return handler(name if self.as_text and isinstance(value, str) else section)
        if self.role.own(name) is None:
            raise as_complaint(self.role.unknown(name, where="", more=self.more))
        try:
            return checked_options(self.role, section, without=self.without)
        except UserError as error:
            if error.code == "user_code":
                raise
            raise as_complaint(error) from error

    def _section(self, value: Any) -> Any:
        """A bare name, or `nni:MODEL`, as a section."""
        if not isinstance(value, str):
            return value
        name, colon, model = value.partition(":")
        return {"name": name, "model": model} if colon and name in self.role else {"name": value}


def method(role: Role, *, more: tuple[Any, ...] = (), without: tuple[str, ...] = ()) -> Any:
    """The type of a field that holds a method of a role with its options; a bare name stands for all its defaults.

    Args:
        role: what it is.
        more: settings of further methods, which no table has.
        without: see `options_of`.
    """
    members = (*(options_of(role, name, without=without) for name in role), *more)
    union: Any = Union[members]  # noqa: UP007 - made at run time
    names = tuple(member.model_fields["name"].annotation.__args__[0] for member in more)
    return Annotated[union, Field(discriminator="name"), Named(role, without, names)]


def _default(parameter: inspect.Parameter) -> Any:
    return ... if parameter.default is inspect.Parameter.empty else parameter.default


def _types(found: Any) -> Mapping[str, Any]:
    """The types of the arguments by name, as far as their annotations can be evaluated."""
    annotated = found
    if isinstance(found, type):
        owner = next(base for base in found.__mro__ if "__init__" in vars(base))
        annotated = owner if "__dataclass_fields__" in vars(owner) else vars(owner)["__init__"]
    try:
        return get_type_hints(annotated, include_extras=True)
    except (NameError, AttributeError, TypeError):  # names imported for type checkers alone, as in Optuna's samplers
        return {}


def _between_commas(text: str) -> list[str]:
    """The parts of a text between commas that are in no brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
