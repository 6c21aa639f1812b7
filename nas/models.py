"""Networks by name: from timm, from a user's own file, or for super-resolution."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from torch import nn

from espalier.nas.data.images import Normalisation
from espalier.nas.errors import UserError
from espalier.nas.super_resolution.networks import NETWORKS, super_resolution_factory
from espalier.nas.user_code import Reference
from espalier.nas.user_network import user_network_factory

_log = logging.getLogger(__name__)


def network_factory(
    text: str, *, image_shape: tuple[int, int, int], classes: int, pretrained: bool = False
) -> Callable[[], nn.Module]:
    """A function that makes the network `timm:NAME`, `FILE.py:FUNCTION`, or `NAME:OPTIONS` for super-resolution.

    Args:
        text: a model of timm, which is made for these images and classes; a function or class without arguments in a
            Python file, which is executed; or a network such as `edsr:scale=2,blocks=8`, which does not depend on the
            images and classes (see `espalier.nas.super_resolution.super_resolution_factory`).
        image_shape: `(channels, height, width)`.
        classes: number of outputs.
        pretrained: load timm's pretrained weights from its hub; else the weights are fresh.

    Raises:
        UserError: another form; no such model, file, function or option; or no pretrained weights.
    """
    kind, colon, name = text.rpartition(":")
    if kind == "timm":
        return _of_timm(name, image_shape[0], image_shape[1:], classes, pretrained)
    if pretrained:
        raise UserError(
            text,
            "only models of timm have pretrained weights; pass a file of weights instead",
            code="unsupported",
        )
    if colon and kind.endswith(".py"):
        return user_network_factory(Reference(kind, name))
    name = text.partition(":")[0]
    if colon and name in NETWORKS:
        return super_resolution_factory(text)
    problem = "is neither timm:NAME, FILE.py:FUNCTION nor a super-resolution network with its options"
    kinds = ("timm:", "FILE.py:", *(f"{network}:" for network in NETWORKS))
    raise UserError(text, problem, allowed=kinds, given=f"{name}:")


def in_float32(network: nn.Module) -> nn.Module:
    """The network with its real numbers in float32: converted in place, and told, from half or double precision."""
    dtypes = {str(p.dtype).removeprefix("torch.") for p in network.parameters() if p.is_floating_point()}
    others = sorted(dtypes - {"float32"})
    if others:
        _log.info("the network is in %s: it is converted to float32", " and ".join(others))
    return network.float()


def _of_timm(
    name: str, channels: int, size: tuple[int, int], classes: int, pretrained: bool
) -> Callable[[], nn.Module]:
    import timm

    if not timm.is_model(name):
        raise UserError(f"timm:{name}", "there is no such model in timm", allowed=timm.list_models(), given=name)
    options: dict[str, Any] = {"pretrained": pretrained, "in_chans": channels, "num_classes": classes}

    def make() -> nn.Module:
        try:
            return timm.create_model(name, **options, img_size=size)
        except TypeError:  # only models that split images into patches take their size
            return timm.create_model(name, **options)

    def downloaded() -> nn.Module:
        try:
            return make()
        except (OSError, RuntimeError, ValueError) as error:  # no weights of this tag, or the hub cannot be reached
            raise UserError(
                f"timm:{name}", f"its pretrained weights cannot be loaded ({error})", code="unavailable"
            ) from error

    return downloaded if pretrained else make


def timm_normalisation(name: str) -> Normalisation:
    """The normalisation that timm's pretrained weights of a model were trained with.

    Raises:
        UserError: timm has no such model, or no weights for it.
    """
    import timm

    try:
        settings = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        raise UserError(
            f"timm:{name}", "there is no such model in timm", allowed=timm.list_models(), given=name
        ) from error
    if settings is None or not settings.has_weights:
        raise UserError(f"timm:{name}", "timm has no pretrained weights for it", code="unavailable")
    return Normalisation(tuple(settings.mean), tuple(settings.std))
