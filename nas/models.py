"""Networks by name: timm's, those of a user's own file, and those of super-resolution."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from espalier.nas.errors import UserError


def network_factory(
    text: str, *, image_shape: tuple[int, int, int], classes: int, pretrained: bool = False
) -> Callable[[], nn.Module]:
    """Makes networks from `timm:NAME`, `FILE.py:FUNCTION`, or the name and options of one of super-resolution.

    Args:
        text: a model of timm, made for these images and classes; or a function, or class, without arguments in a
            Python file, which is executed; or `edsr:scale=2,blocks=8`, which the images and classes do not change
            (see `espalier.nas.super_resolution.super_resolution_factory`).
        image_shape: `(channels, height, width)`.
        classes: number of outputs.
        pretrained: with the weights that timm has for the model, loaded from its hub; else with fresh ones.

    Raises:
        UserError: another form, no such model, file, function or option; no pretrained weights.
    """
    kind, colon, name = text.rpartition(":")
    if kind == "timm":
        return _of_timm(name, image_shape[0], image_shape[1:], classes, pretrained)
    if pretrained:
        raise UserError(text, "only models of timm come with pretrained weights; give yours as a file of weights")
    if colon and kind.endswith(".py"):
        return _of_file(Path(kind), name)
    from espalier.nas.super_resolution.networks import NETWORKS, super_resolution_factory

    name = text.partition(":")[0]
    if colon and name in NETWORKS:
        return super_resolution_factory(text)
    problem = "is neither timm:NAME nor FILE.py:FUNCTION nor a network of super-resolution with its options"
    kinds = ("timm:", "FILE.py:", *(f"{network}:" for network in NETWORKS))
    raise UserError(text, problem, allowed=kinds, given=f"{name}:")


def _of_timm(
    name: str, channels: int, size: tuple[int, int], classes: int, pretrained: bool
) -> Callable[[], nn.Module]:
    import timm

    if not timm.is_model(name):
        raise UserError(f"timm:{name}", "timm has no such model", allowed=timm.list_models(), given=name)
    options: dict[str, Any] = {"pretrained": pretrained, "in_chans": channels, "num_classes": classes}

    def make() -> nn.Module:
        try:
            return timm.create_model(name, **options, img_size=size)
        except TypeError:  # only models of patches are told the size of the images
            return timm.create_model(name, **options)

    def downloaded() -> nn.Module:
        try:
            return make()
        except (OSError, RuntimeError, ValueError) as error:  # no weights of this tag, or the hub is not reached
            raise UserError(f"timm:{name}", f"its pretrained weights cannot be loaded ({error})") from error

    return downloaded if pretrained else make


def timm_normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation, per channel of pixels in 0..1, that timm's weights of a model were trained with.

    Raises:
        UserError: timm has no such model, or no weights for it.
    """
    import timm

    try:
        settings = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        raise UserError(f"timm:{name}", "timm has no such model", allowed=timm.list_models(), given=name) from error
    if settings is None or not settings.has_weights:
        raise UserError(f"timm:{name}", "timm has no pretrained weights for it")
    return tuple(settings.mean), tuple(settings.std)


def module_of(path: Path) -> ModuleType:
    """A user's Python file, executed as `import` would.

    Raises:
        UserError: no such file, or it raises.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UserError(str(path), "is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's file may raise anything
        raise UserError(str(path), f"{type(error).__name__}: {error}") from error
    return module


def _of_file(path: Path, name: str) -> Callable[[], nn.Module]:
    module = module_of(path)
    make = getattr(module, name, None)
    if not callable(make):
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(str(path), f"has no function {name!r}", allowed=functions, given=name)

    def checked() -> nn.Module:
        network = make()
        if not isinstance(network, nn.Module):
            raise UserError(f"{path}:{name}", f"returns a {type(network).__name__}, not a torch module")
        return network

    return checked
