"""NNI itself: importing it late and quietly, and finding its model spaces."""

from __future__ import annotations

import functools
import logging
import warnings
from types import ModuleType
from typing import Any

from torch import nn

from espalier.nas.errors import UserError
from espalier.nas.user_code import Reference

WHERE = "space.model"
"""The key of a recipe that names the model space."""


@functools.cache
def hub() -> ModuleType:
    """The module `nni.nas.hub.pytorch`, with two fixes.

    Importing it takes seconds, because of Lightning. NNI's log handler, which writes to standard output, is removed.
    And modules with arguments get torch's `__repr__`: NNI's own fails for frozen modules, which stops the ONNX
    exporter.

    Raises:
        UserError: NNI is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about names that torch.nn now has too
            import nni.nas.strategy  # noqa: F401 - before the hub, whose import of nni.nas.oneshot fails otherwise
            from nni.nas.hub import pytorch
            from nni.nas.nn.pytorch import ParametrizedModule
    except ModuleNotFoundError as error:
        problem = "NNI's spaces need `pip install 'espalier-nas[nni]'` (x86-64 only: NNI has no wheels for Arm)"
        raise UserError("space.name", f"{problem}; missing: {error.name}", code="unavailable") from error
    logger = logging.getLogger("nni")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    ParametrizedModule.__repr__ = nn.Module.__repr__
    return pytorch


def model_space_class(model: str) -> Any:
    """A model space by name, from NNI's hub or a user's own `FILE.py:CLASS`.

    Args:
        model: the name.

    Raises:
        UserError: there is no such space, file or class, or it is not a model space.
    """
    pytorch = hub()  # before the user's file, which imports NNI
    from nni.nas.nn.pytorch import ModelSpace

    file, colon, name = model.rpartition(":")
    if not colon:
        members = vars(pytorch)
        names = sorted(
            key for key, value in members.items() if isinstance(value, type) and issubclass(value, ModelSpace)
        )
        if name not in names:
            raise UserError(WHERE, f"there is no {name!r} in NNI's hub", allowed=names, given=name)
        return members[name]
    reference = Reference(file, name)
    found = reference.resolve(lambda value: isinstance(value, type) and issubclass(value, ModelSpace))
    if not (isinstance(found, type) and issubclass(found, ModelSpace)):
        raise UserError(str(reference), "is not a nni.nas.nn.pytorch.ModelSpace", code="user_code")
    return found
