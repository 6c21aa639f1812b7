"""Networks by name: timm's, and those of a user's own file."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from nas.errors import UserError


def network_factory(text: str, *, image_shape: tuple[int, int, int], classes: int) -> Callable[[], nn.Module]:
    """Makes networks with fresh weights, from `timm:NAME` or `FILE.py:FUNCTION`.

    Args:
        text: a model of timm, made for these images and classes; or a function, or class, without arguments in a
            Python file, which is executed.
        image_shape: `(channels, height, width)`. classes: number of outputs.

    Raises:
        UserError: another form, no such model, or no such file or function.
    """
    kind, colon, name = text.rpartition(":")
    if kind == "timm":
        return _of_timm(name, image_shape[0], image_shape[1:], classes)
    if colon and kind.endswith(".py"):
        return _of_file(Path(kind), name)
    raise UserError(text, "is neither timm:NAME nor FILE.py:FUNCTION")


def _of_timm(name: str, channels: int, size: tuple[int, int], classes: int) -> Callable[[], nn.Module]:
    import timm

    if not timm.is_model(name):
        raise UserError(f"timm:{name}", "timm has no such model", allowed=timm.list_models(), given=name)
    options: dict[str, Any] = {"pretrained": False, "in_chans": channels, "num_classes": classes}

    def make() -> nn.Module:
        try:
            return timm.create_model(name, **options, img_size=size)
        except TypeError:  # only models of patches are told the size of the images
            return timm.create_model(name, **options)

    return make


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
