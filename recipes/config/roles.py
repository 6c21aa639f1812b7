"""How the name of a method becomes its class: the platform's, those of other packages, and the user's own.

A name is one of the platform's, an entry point of an installed package, `FILE.py:NAME` with a path relative to the
current folder, or `package.module:NAME`. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from espalier.nas.errors import UserError
from espalier.nas.user_code import Reference, called

OWN_FORMS = ("FILE.py:NAME", "package.module:NAME")
"""How methods are named that neither the platform nor an installed package registers."""
_OWN_AND_OPTIONS = re.compile(r"(?P<name>(.+?\.py|[^\W\d][\w.]*):[^\W\d]\w*)(:(?P<options>.*))?", re.DOTALL)


@dataclass(frozen=True, eq=False)
class Role(Mapping[str, str]):
    """A kind of method; as a mapping, the platform's own by name, each as `module:NAME`.

    Attributes:
        title: what a method of this role is called in messages.
        group: the group of entry points with which packages register theirs.
        places: the mapping.
        base: the class, as `module:NAME`, that methods are subclasses of; empty where any class or function will do.
        attributes: what an own method must have besides.
    """

    title: str
    group: str
    places: Mapping[str, str]
    base: str = ""
    attributes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> str:
        return self.places[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __hash__(self) -> int:
        return hash(self.group)

    @functools.cached_property
    def registered(self) -> Mapping[str, Reference]:
        """What installed packages register, by name; the platform's own names stay its own."""
        found: dict[str, Reference] = {}
        for point in importlib.metadata.entry_points(group=self.group):
            reference = Reference.parse(point.value)
            if reference is None or point.name in self.places or point.name in found:
                problem = "is not module:NAME" if reference is None else "has a name that is taken"
                logging.getLogger("espalier").warning("entry point %s of %s %s", point.name, self.group, problem)
            else:
                found[point.name] = reference
        return found

    def names(self) -> list[str]:
        """All names that need no file or module."""
        return sorted({*self.places, *self.registered})

    def own(self, name: str) -> Reference | None:
        """Where a method is that is not the platform's; None if the name is one of the platform's or of none."""
        if name in self.places:
            return None
        return Reference.parse(name) or self.registered.get(name)

    def split(self, text: str) -> tuple[str, str]:
        """Name and options of `NAME` or `NAME:options`, where NAME may itself be `FILE.py:NAME`."""
        first, _, rest = text.partition(":")
        if first in self.places or first in self.registered:
            return first, rest
        match = _OWN_AND_OPTIONS.fullmatch(text)
        return (match["name"], match["options"] or "") if match else (first, rest)

    def unknown(self, name: str, *, where: str, more: tuple[str, ...] = ()) -> UserError:
        """The error for a name that stands for nothing; `more` are further names that would do."""
        allowed = (*self.names(), *more, *OWN_FORMS)
        return UserError(where, f"unknown {self.title} {name!r}", allowed=allowed, given=name)

    def accepts(self, found: object) -> bool:
        """Whether something could be a method of this role."""
        if not self.base:
            return callable(found)
        base = imported(self.base)
        return isinstance(found, type) and issubclass(found, base) and found is not base


def imported(place: str) -> Any:
    """The platform's class or function at `module:NAME`."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def load(role: Role, name: str, *, where: str) -> Any:
    """The class or function that `name` stands for.

    Args:
        role: what it must be.
        name: see the module's docstring.
        where: the key or option that holds the name.

    Raises:
        UserError: no such name, file or module; an own method that raises when it is imported, or is not of the role.
    """
    if name in role.places:
        return imported(role.places[name])
    reference = role.own(name)
    if reference is None:
        raise role.unknown(name, where=where)
    found = reference.resolve(role.accepts)
    _check(role, name, found)
    return found


def make(role: Role, name: str, *arguments: Any, where: str, **options: Any) -> Any:
    """What the class or function of that name makes of the arguments.

    Raises:
        UserError: see `load`; or an own method raises.
    """
    found = load(role, name, where=where)
    return found(*arguments, **options) if name in role.places else called(found, name, *arguments, **options)


def content_of(role: Role, name: str) -> str | None:
    """The sha256 of the file that an own method is in; None for the platform's.

    Raises:
        UserError: the file or module is missing or cannot be read.
    """
    reference = role.own(name)
    return None if reference is None else reference.digest()


def _check(role: Role, name: str, found: Any) -> None:
    if not role.accepts(found):
        wanted = f"a subclass of {role.base.partition(':')[2]}" if role.base else "a class or function"
        raise UserError(name, f"is not a {role.title}, which is {wanted}", code="user_code")
    missing = [attribute for attribute in role.attributes if not hasattr(found, attribute)]
    missing += sorted(getattr(found, "__abstractmethods__", ())) if inspect.isabstract(found) else []
    if missing:
        raise UserError(name, f"is not a {role.title}: it does not define {', '.join(missing)}", code="user_code")
