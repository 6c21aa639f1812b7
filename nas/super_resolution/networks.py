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
"""Each takes its options as keyword arguments; those that depend on a scale have an argument `scale`."""
OWN = "FILE.py:FUNCTION"


def super_resolution_factory(text: str, scale: int | None = None) -> Callable[[], nn.Module]:
    """A function that makes networks with fresh weights, from `NAME:key=value,key=value` or `FILE.py:FUNCTION`.

    Args:
        text: a name in `NETWORKS`, with options of its constructor that may include the scale, such as
            `edsr:scale=2,blocks=8`; or a function or class in a Python file, which is called without arguments and must
            be made for the scale.
        scale: factor between the sides of output and input; None if it is in the text. VDSR does not depend on it, for
            its input has the size of its output.

    Raises:
        UserError: no such network, option, file or function; an invalid value; or the scale is missing or given twice.
    """
    name, _, given = text.partition(":")
    if name.endswith(".py"):
        return user_network_factory(Reference(name, given))
    if name not in NETWORKS:
        raise UserError(text, f"unknown network {name!r}", allowed=[*NETWORKS, OWN], given=name)
    options = _options(name, given)
    if "scale" in _hints(name):
        if scale is None and "scale" not in options:
            raise UserError(f"{name}.scale", f"is missing; for example {name}:scale=2", code="missing")
        if scale is not None and options.setdefault("scale", scale) != scale:
            raise UserError(f"{name}.scale", f"is {options['scale']}, but must be {scale} here", code="conflict")
    make = partial(NETWORKS[name], **options)
    try:
        # Report options that do not fit together now; not on the meta device, whose random numbers are slow to import.
        with torch.random.fork_rng(devices=[]):
            make()
    except UserError as error:
        raise UserError(f"{name}.{error.where}", error.problem, code=error.code) from error
    return make


def with_scale(text: str, scale: int) -> str:
    """The same network with the scale in its name, if it depends on one: `edsr:scale=2,blocks=8`."""
    name, _, given = text.partition(":")
    missing = "scale" in _hints(name) and "scale" not in _options(name, given)
    return f"{name}:{','.join(filter(None, (f'scale={scale}' if missing else '', given)))}"


def on_luma(network: nn.Module) -> bool:
    """Whether a network takes the Y of an upscaled image instead of a small RGB image: its attribute `on_luma`."""
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
