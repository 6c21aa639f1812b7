"""The part of a device's address after its kind: `//USER@HOST:PORT?key=value&key=value`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote

from espalier.nas.errors import UserError

_NAME = re.compile(r"\w[\w.+-]*", re.ASCII)
"""Names of users and hosts: no shell metacharacters, and no leading dash, so that none is taken for an option."""
_IPV6 = re.compile(r"\[[0-9A-Fa-f:.]+\]")


@dataclass(frozen=True)
class Location:
    """Where a device is.

    Attributes:
        authority: the part between `//` and `?`.
        host: the host in it.
        user: the user in it; None if not given.
        port: the port in it; None if not given.
        options: the part after `?`.
    """

    authority: str
    host: str
    user: str | None = None
    port: int | None = None
    options: dict[str, str] = field(default_factory=dict)


def parse(rest: str, *, where: str, form: str, options: Iterable[str]) -> Location:
    """The location in an address.

    Args:
        rest: the address after its first colon.
        where: the key or option that contains it.
        form: the form of such addresses, for the error message.
        options: names of allowed options.

    Raises:
        UserError: the address has another form, or an unknown option.
    """
    authority, _, query = rest.partition("?")
    wrong = UserError(where, f"{rest!r} is not the address of a device", code="invalid", allowed=[form])
    if not authority.startswith("//"):
        raise wrong
    authority = authority[2:].rstrip("/")
    user, at, place = authority.rpartition("@")
    host, colon, port = place.rpartition(":") if not place.endswith("]") else (place, "", "")
    if not colon:
        host = place
    if (at and not _NAME.fullmatch(user)) or not (_NAME.fullmatch(host) or _IPV6.fullmatch(host)):
        raise wrong
    if colon and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise wrong
    return Location(
        authority, host.strip("[]"), user or None, int(port) if colon else None, parse_options(query, where, options)
    )


def parse_options(query: str, where: str, allowed: Iterable[str]) -> dict[str, str]:
    """The options after an address's `?`, percent-decoded; a plus stays a plus.

    Raises:
        UserError: an option is unknown, or has no value.
    """
    options = {}
    for text in query.split("&") if query else ():
        key, _, value = text.partition("=")
        if key not in allowed:
            raise UserError(where, f"the address has an unknown option {key!r}", allowed=allowed, given=key)
        if not value:
            raise UserError(where, f"{key} has no value in the address", code="missing")
        options[key] = unquote(value)
    return options
