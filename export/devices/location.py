"""The part of a device's address after its kind: `//USER@HOST:PORT?key=value&key=value`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote

from espalier.nas.errors import UserError

_NAME = re.compile(r"\w[\w.+-]*", re.ASCII)
"""Of users and hosts. Nothing that a shell would read, and no dash at the beginning, so that none is an option."""
_IPV6 = re.compile(r"\[[0-9A-Fa-f:.]+\]")


@dataclass(frozen=True)
class Location:
    """Where a device is.

    Attributes:
        authority: what stands between `//` and `?`.
        options: what stands behind it.
        user, host, port: parts of the authority; None for what is not given.
    """

    authority: str
    host: str
    user: str | None = None
    port: int | None = None
    options: dict[str, str] = field(default_factory=dict)


def parse(rest: str, *, where: str, form: str, options: Iterable[str]) -> Location:
    """The location in an address.

    Args:
        rest: of the address, behind the first colon.
        where: the key or option that holds it.
        form: of such addresses, for the error.
        options: those that may be given.

    Raises:
        UserError: of another form, or an option that there is not.
    """
    authority, _, query = rest.partition("?")
    wrong = UserError(where, f"{rest!r} is not the address of a device", allowed=[form], given=rest)
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
    """The options behind an address's `?`, percent-decoded; a plus is a plus.

    Raises:
        UserError: there is no such option, or it has no value.
    """
    options = {}
    for text in query.split("&") if query else ():
        key, _, value = text.partition("=")
        if key not in allowed:
            raise UserError(where, f"an address takes no {key!r} there", allowed=allowed, given=key)
        if not value:
            raise UserError(where, f"{key} has no value in the address")
        options[key] = unquote(value)
    return options
