"""Making the networks of an NNI model space."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from espalier.nas.errors import UserError
from espalier.nas.spaces.nni.library import WHERE, model_space_class
from espalier.nas.spaces.nni.repairs import repair

CHOSEN = "_nni_chosen"
"""Attribute of a module in a skeleton: the name of the layer choice's candidate that it is."""


class Blueprint:
    """A model space, by class and arguments. It is immutable, and never copied.

    Args:
        model: a name of NNI's hub, or `FILE.py:CLASS`.
        input_shape: passed to the constructor under the names that NNI's spaces use.
        num_classes: likewise.
        options: further arguments of the model space.

    Raises:
        UserError: there is no such space or argument, or the constructor raises.
    """

    def __init__(
        self, model: str, input_shape: tuple[int, int, int], num_classes: int, options: Mapping[str, Any]
    ) -> None:
        self.model = model
        self._class = model_space_class(model)
        self._input_shape = input_shape
        self._num_classes = num_classes
        self._arguments = _arguments(self._class, input_shape, num_classes, options)
        try:
            self._space = on_meta(lambda: self._class(**self._arguments))
            self.mutables: dict[str, Any] = self._space.simplify()
        except Exception as error:  # a model space may raise anything
            raise UserError(WHERE, f"{model}: {type(error).__name__}: {error}", code="user_code") from error

    def __deepcopy__(self, memo: dict[int, Any]) -> Blueprint:
        return self

    def violation(self, sample: Mapping[str, Any]) -> str | None:
        """The constraint that a sample violates; None if it is valid."""
        error = self._space.check_contains(dict(sample))  # constraints modify the sample
        return None if error is None else str(error)

    def network(self, sample: Mapping[str, Any]) -> nn.Module:
        """NNI's frozen model of a valid sample, with fresh weights on the current device."""
        from nni.nas.space import model_context

        with model_context(dict(sample)):
            network: nn.Module = self._class(**self._arguments)
        return repair(network, self._input_shape, self._num_classes)

    def skeleton(self, sample: Mapping[str, Any]) -> nn.Module:
        """The same model without weights (on the meta device); candidates are marked with their names."""
        with _candidates_named():
            return on_meta(lambda: self.network(sample))


def on_meta(make: Callable[[], Any]) -> Any:
    """Make a module with its parameters on the meta device, but its constants, if it has any, on the CPU.

    Most constructors run on the meta device, which needs no time and no random numbers. The others read values of
    tensors, or keep constants.

    Args:
        make: makes the module.
    """
    network = None
    try:
        with torch.device("meta"):
            network = make()
    except (RuntimeError, NotImplementedError) as error:
        if "meta" not in str(error):
            raise
    if network is None or _has_constants(network):
        with torch.random.fork_rng(devices=[]):
            network = make()
        for module in network.modules():
            for name, parameter in module._parameters.items():
                module._parameters[name] = None if parameter is None else nn.Parameter(parameter.to("meta"))
    return network


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a batch norm; running statistics are the only buffers that are learned."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def _has_constants(network: nn.Module) -> bool:
    return any(
        isinstance(value, torch.Tensor)
        for module in network.modules()
        if not is_norm(module)
        for value in [*module._buffers.values(), *vars(module).values()]
    )


def _arguments(
    space_class: Any, input_shape: tuple[int, int, int], num_classes: int, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments of a model space; properties of the data are passed to constructors that take them."""
    inits = (base.__dict__.get("_init_wrapped") for base in space_class.__mro__)
    init = next(init for init in inits if init is not None and init.__name__ != "new_init")  # not NNI's wrapper
    parameters = [name for name in inspect.signature(init).parameters if name != "self"]
    for key in options:
        if key not in parameters:
            raise UserError(
                f"space.options.{key}", f"{space_class.__name__} has no such argument", allowed=parameters, given=key
            )
    channels, height, _ = input_shape
    known = {
        "num_labels": num_classes,
        "num_classes": num_classes,
        "in_channels": channels,
        "in_chans": channels,
        "img_size": height,
    }
    return {name: known[name] for name in parameters if name in known} | {k: _tuples(v) for k, v in options.items()}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


@contextmanager
def _candidates_named() -> Iterator[None]:
    """While it is active, the candidates that layer choices become are marked with their names."""
    from nni.nas.nn.pytorch import LayerChoice

    original = LayerChoice.__dict__["create_fixed_module"]

    def marking(cls: Any, sample: Any, candidates: Any, **options: Any) -> nn.Module:
        chosen: nn.Module = original.__get__(None, cls)(sample, candidates, **options)
        named = candidates.items() if isinstance(candidates, dict) else enumerate(candidates)
        name = next(name for name, module in named if module is chosen)
        setattr(chosen, CHOSEN, f"{name}/{getattr(chosen, CHOSEN, '')}")  # a choice inside a choice
        return chosen

    LayerChoice.create_fixed_module = classmethod(marking)
    try:
        yield
    finally:
        LayerChoice.create_fixed_module = original
