"""Networks that a user's own function or class makes."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from espalier.nas.errors import UserError
from espalier.nas.user_code import Reference, called


def user_network_factory(reference: Reference) -> Callable[[], nn.Module]:
    """Makes networks by calling a function or class of the user's, without arguments.

    Args:
        reference: where it is defined.

    Returns:
        A function that makes a new network at each call. It raises `UserError` if the user's code raises or returns
        anything but a torch module.

    Raises:
        UserError: there is no such file, module or name, its code raises, or it cannot be called.
    """
    make = reference.resolve()
    if not callable(make):
        raise UserError(str(reference), "is not a function or class", code="user_code")

    def checked() -> nn.Module:
        network = called(make, str(reference))
        if not isinstance(network, nn.Module):
            problem = f"returns {type(network).__name__!r}, not a torch module"
            raise UserError(str(reference), problem, code="user_code")
        return network

    return checked
