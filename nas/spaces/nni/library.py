"""NNI itself: imported late and quietly, its model spaces found by name."""

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
    """The module `nni.nas.hub.pytorch`, made fit to live with.

    Importing takes seconds (Lightning). NNI's own handler, which logs to standard output, is removed, and modules
    with arguments are printed as torch modules are: NNI's way fails on frozen ones, which stops the ONNX exporter.

    Raises:
        UserError: NNI is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that torch.nn has got since
            import nni.nas.strategy  # noqa: F401 - nni.nas.oneshot, which the hub imports, fails when it comes first
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
    """The model space of `model`: one of NNI's hub by name, or a user's own from `FILE.py:CLASS`.

    Raises:
        UserError: no such space, file or class, or not a model space.
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
            raise UserError(WHERE, f"NNI's hub has no {name!r}", allowed=names, given=name)
        return members[name]
    reference = Reference(file, name)
    found = reference.resolve(lambda value: isinstance(value, type) and issubclass(value, ModelSpace))
    if not (isinstance(found, type) and issubclass(found, ModelSpace)):
        raise UserError(str(reference), "is not a nni.nas.nn.pytorch.ModelSpace", code="user_code")
    return found
