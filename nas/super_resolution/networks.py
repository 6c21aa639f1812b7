"""Networks of super-resolution by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from espalier.nas.errors import UserError
from espalier.nas.super_resolution.edsr import EDSR
from espalier.nas.super_resolution.swinir import SwinIRLight
from espalier.nas.super_resolution.vdsr import VDSR
from espalier.nas.user_code import Reference
from espalier.nas.user_network import user_network_factory

NETWORKS: Mapping[str, type[nn.Module]] = {"edsr": EDSR, "swinir": SwinIRLight, "vdsr": VDSR}
"""Each takes its options by keyword, and the scale, if it depends on it, first."""
OWN = "FILE.py:FUNCTION"


def super_resolution_factory(text: str, scale: int | None = None) -> Callable[[], nn.Module]:
    """Makes networks with fresh weights, from `NAME`, `NAME:key=value,key=value` or `FILE.py:FUNCTION`.

    Those of a user's file take no arguments, and are meant for the scale.

    Args:
        text: a name in `NETWORKS` and options of its constructor, of which the scale is one: `edsr:scale=2,blocks=8`;
            or a function, or class, in a Python file.
        scale: how many times as many pixels the network gives on each side; None if the text has it. VDSR, which
            gives as many as it gets, does not depend on it.

    Raises:
        UserError: no such network, option, file or function, a value that will not do, or no scale, or two.
    """
    name, _, given = text.partition(":")
    if name.endswith(".py"):
        return user_network_factory(Reference(name, given))
    if name not in NETWORKS:
        raise UserError(text, f"there is no network {name!r}", allowed=[*NETWORKS, OWN], given=name)
    options = _options(name, given)
    if "scale" in _hints(name):
        if scale is None and "scale" not in options:
            raise UserError(f"{name}.scale", f"is missing, as in {name}:scale=2", code="missing")
        if scale is not None and options.setdefault("scale", scale) != scale:
            raise UserError(f"{name}.scale", f"is {options['scale']}, where {scale} is asked for", code="conflict")
    make = partial(NETWORKS[name], **options)
    try:
        # What does not fit together is said now. Not on the meta device: its random numbers take seconds to import.
        with torch.random.fork_rng(devices=[]):
            make()
    except UserError as error:
        raise UserError(f"{name}.{error.where}", error.problem, code=error.code) from error
    return make


def with_scale(text: str, scale: int) -> str:
    """The same network by a name that holds the scale, where it depends on one: `edsr:scale=2,blocks=8`."""
    name, _, given = text.partition(":")
    missing = "scale" in _hints(name) and "scale" not in _options(name, given)
    return f"{name}:{','.join(filter(None, (f'scale={scale}' if missing else '', given)))}"


def on_luma(network: nn.Module) -> bool:
    """Whether a network wants the Y of an enlarged image instead of a small RGB image: its attribute `on_luma`."""
    return bool(getattr(network, "on_luma", False))


def _hints(name: str) -> dict[str, Any]:
    """The types of a network's options, in their order."""
    hints = get_type_hints(NETWORKS[name].__init__, include_extras=True)
    return {key: hint for key, hint in hints.items() if key != "return"}


def _options(name: str, given: str) -> dict[str, Any]:
    """`key=value,key=value`, checked by the annotations of the network's constructor."""
    hints = _hints(name)
    options: dict[str, Any] = {}
    for option in filter(None, given.split(",")):
        key, equals, value = option.partition("=")
        where = f"{name}.{key}"
        if not equals:
            raise UserError(name, f"{option!r} is not of the form key=value", allowed=hints, given=key, code="invalid")
        if key not in hints:
            raise UserError(where, "no such option", allowed=hints, given=key)
        if key in options:
            raise UserError(where, "is given twice", code="conflict")
        try:
            options[key] = TypeAdapter(hints[key]).validate_python(value)
        except ValidationError as error:
            raise UserError(where, f"{error.errors()[0]['msg']}, not {value!r}") from error
    return options
