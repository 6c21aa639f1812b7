"""Networks of super-resolution by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, get_type_hints

import torch
import yaml
from pydantic import TypeAdapter, ValidationError
from torch import nn

from nas.errors import UserError
from nas.models import network_factory
from nas.super_resolution.edsr import EDSR
from nas.super_resolution.swinir import SwinIRLight
from nas.super_resolution.vdsr import VDSR

NETWORKS: Mapping[str, type[nn.Module]] = {"edsr": EDSR, "swinir_light": SwinIRLight, "vdsr": VDSR}
"""Each takes the scale and, by keyword, its options."""


def super_resolution_factory(text: str, scale: int) -> Callable[[], nn.Module]:
    """Makes networks with fresh weights, from `NAME`, `NAME:key=value,key=value` or `FILE.py:FUNCTION`.

    Those of a user's file take no arguments, and are meant for the scale.

    Args:
        text: a name in `NETWORKS` and options of its constructor; or a function, or class, in a Python file.
        scale: how many times as many pixels the network gives on each side.

    Raises:
        UserError: no such network, option, file or function, or a value that will not do.
    """
    name, _, given = text.partition(":")
    if name.endswith(".py"):
        return network_factory(text, image_shape=(3, 0, 0), classes=0)
    if name not in NETWORKS:
        raise UserError(text, f"there is no network {name!r}", allowed=[*NETWORKS, "FILE.py:FUNCTION"], given=name)
    make = partial(NETWORKS[name], scale, **_options(name, given))
    with torch.device("meta"):  # what does not fit together is said now, without memory and random numbers
        make()
    return make


def on_luma(network: nn.Module) -> bool:
    """Whether a network wants the Y of an enlarged image instead of a small RGB image: its attribute `on_luma`."""
    return bool(getattr(network, "on_luma", False))


def _options(name: str, given: str) -> dict[str, Any]:
    """`key=value,key=value`, checked by the annotations of the network's constructor."""
    constructor = NETWORKS[name].__init__
    hints = get_type_hints(constructor, include_extras=True)
    parameters = inspect.signature(constructor).parameters.values()
    allowed = [one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY]
    options: dict[str, Any] = {}
    for option in filter(None, given.split(",")):
        key, equals, value = option.partition("=")
        where = f"{name}.{key}"
        if not equals:
            raise UserError(name, f"{option!r} is not of the form key=value")
        if key not in allowed:
            raise UserError(where, "no such option", allowed=allowed, given=key)
        try:
            options[key] = TypeAdapter(hints[key]).validate_python(yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise UserError(where, f"{value!r} is not a YAML value") from error
        except ValidationError as error:
            raise UserError(where, f"{error.errors()[0]['msg']}, not {value!r}") from error
    return options
