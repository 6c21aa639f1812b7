"""The structure of a shrunk network as plain data: what differs, module by module, from the dense network.

Only shapes and attributes, without the code that found them: a new dense network with these applied can load the
shrunk network's weights.

    {"layer1.0.conv1": {"tensors": {"weight": [24, 64, 3, 3]}, "attributes": {"out_channels": 24}},
     "layer1.1": {"replaced": "Identity"}}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from espalier.nas.errors import UserError

Structure = Mapping[str, Mapping[str, Any]]
"""By name of each module that differs: `tensors` (shapes), `values` (of buffers that are not saved), `attributes`, or
`replaced` (by an Identity)."""

KEYS = ("tensors", "values", "attributes", "replaced")
IDENTITY = "Identity"


def structure_of(dense: nn.Module, shrunk: nn.Module) -> dict[str, dict[str, Any]]:
    """How `shrunk` differs from `dense`.

    Raises:
        ValueError: a difference that cannot be expressed: a module of another class that is not an Identity, or a
            module, parameter or buffer that only one of the networks has.
    """
    found: dict[str, dict[str, Any]] = {}
    _compare("", dense, shrunk, found)
    return found


def apply_structure(model: nn.Module, structure: Structure) -> None:
    """Give a dense network the shapes and attributes of the shrunk one, in place; load the weights afterwards.

    Raises:
        UserError: the structure is damaged or belongs to another network; the module is named.
    """
    if not isinstance(structure, Mapping):
        raise UserError("structure", f"is a {type(structure).__name__}, must map module names to what differs")
    for name, entry in structure.items():
        where = f"structure.{name}"
        if not isinstance(entry, Mapping) or not entry or not entry.keys() <= set(KEYS):
            raise UserError(where, "must be a mapping with some of these keys", code="invalid", allowed=KEYS)
        for key in entry.keys() - {"replaced"}:
            if not isinstance(entry[key], Mapping):
                raise UserError(where, f"{key} is a {type(entry[key]).__name__}, must be a mapping by name")
        try:
            module = model.get_submodule(name)
        except AttributeError as error:
            modules = [known for known, _ in model.named_modules() if known]
            raise UserError(where, "the network has no such module", allowed=modules, given=name) from error
        if "replaced" in entry:
            _replace(model, name, entry["replaced"], where)
        for key, shape in entry.get("tensors", {}).items():
            _reshape(module, key, shape, where)
        for key, values in entry.get("values", {}).items():
            setattr(module, key, _values(_buffer(module, key, where), key, values, where))
        for key, value in entry.get("attributes", {}).items():
            plain = _plain(module)
            if key not in plain:
                problem = f"{type(module).__name__} has no attribute {key!r}"
                raise UserError(where, problem, allowed=plain, given=key)
            if not _compatible(plain[key], value):
                raise UserError(where, f"{key}, which is {plain[key]!r}, cannot become {value!r}", code="mismatch")
            setattr(module, key, _like(plain[key], value))


def _compare(name: str, dense: nn.Module, shrunk: nn.Module, found: dict[str, dict[str, Any]]) -> None:
    if isinstance(shrunk, nn.Identity) and not isinstance(dense, nn.Identity):
        found[name] = {"replaced": IDENTITY}
        return
    # By name: a user's file that is executed twice defines each class twice.
    if type(dense).__qualname__ != type(shrunk).__qualname__:
        raise ValueError(f"{name}: a {type(dense).__name__} became a {type(shrunk).__name__}")
    tensors, others = _tensors(dense), _tensors(shrunk)
    children, others_children = dict(dense.named_children()), dict(shrunk.named_children())
    if tensors.keys() != others.keys() or children.keys() != others_children.keys():
        differing = sorted((tensors.keys() ^ others.keys()) | (children.keys() ^ others_children.keys()))
        raise ValueError(f"{name}: only one of the networks has {', '.join(differing)}")
    changed = {key: list(others[key].shape) for key in tensors if tensors[key].shape != others[key].shape}
    unsaved = dense._non_persistent_buffers_set
    values = {key: others[key].tolist() for key in tensors if key in unsaved and _differ(tensors[key], others[key])}
    before, after = _plain(dense), _plain(shrunk)
    attributes = {key: _json(value) for key, value in after.items() if key in before and before[key] != value}
    entry = {
        "tensors": {key: shape for key, shape in changed.items() if key not in unsaved},
        "values": values,
        "attributes": attributes,
    }
    entry = {key: value for key, value in entry.items() if value}
    if entry:
        found[name] = entry
    for child, module in children.items():
        _compare(f"{name}.{child}".lstrip("."), module, others_children[child], found)


def _differ(a: Tensor, b: Tensor) -> bool:
    return a.shape != b.shape or not torch.equal(a.cpu(), b.cpu())


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """The module's own parameters and buffers."""
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return dict(own)


def _plain(module: nn.Module) -> dict[str, Any]:
    """The attributes that JSON can represent."""
    return {
        key: value
        for key, value in vars(module).items()
        if not key.startswith("_") and key != "training" and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _compatible(old: Any, value: Any) -> bool:
    """Whether the attribute may take this value: a number for a number, a list for a tuple or a list, or None."""
    if not _is_plain(value):
        return False
    if old is None or value is None:
        return True
    if isinstance(old, tuple | list):
        return isinstance(value, list)
    if isinstance(old, bool) or isinstance(value, bool) or isinstance(old, str):
        return type(old) is type(value)
    return isinstance(value, int | float)


def _json(value: Any) -> Any:
    return [_json(item) for item in value] if isinstance(value, tuple | list) else value


def _like(old: Any, value: Any) -> Any:
    """A JSON list as the type the attribute had: a tuple or a list."""
    if not isinstance(value, list):
        return value
    items = [_like(before, item) for before, item in _paired(old, value)]
    return items if isinstance(old, list) else tuple(items)


def _paired(old: Any, value: list[Any]) -> Iterator[tuple[Any, Any]]:
    befores = old if isinstance(old, tuple | list) and len(old) == len(value) else [None] * len(value)
    yield from zip(befores, value, strict=True)


def _replace(model: nn.Module, name: str, by: Any, where: str) -> None:
    if by != IDENTITY or not name:
        raise UserError(where, f"cannot be replaced by {by!r}", allowed=[IDENTITY], given=by)
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Identity())


def _reshape(module: nn.Module, key: str, shape: Any, where: str) -> None:
    old = _tensors(module).get(key)
    if old is None:
        raise UserError(where, f"{type(module).__name__} has no tensor {key!r}", allowed=_tensors(module), given=key)
    fits = isinstance(shape, list) and len(shape) == old.ndim
    if not fits or not all(type(side) is int and 0 < side <= most for side, most in zip(shape, old.shape, strict=True)):
        raise UserError(where, f"{key} of shape {tuple(old.shape)} cannot become {shape}", code="mismatch")
    new = torch.empty(shape, dtype=old.dtype, device=old.device)
    if isinstance(old, nn.Parameter):
        setattr(module, key, nn.Parameter(new, requires_grad=old.requires_grad))
    else:
        setattr(module, key, new)


def _values(old: Tensor, key: str, values: Any, where: str) -> Tensor:
    try:
        new = torch.tensor(values, dtype=old.dtype, device=old.device)
    except (ValueError, TypeError, RuntimeError) as error:  # not numbers, or lists of unequal lengths
        raise UserError(where, f"the values of {key} cannot be made a tensor ({error})") from error
    if new.ndim != old.ndim:
        problem = f"the values of {key} have {new.ndim} dimensions, must have {old.ndim}"
        raise UserError(where, problem, code="mismatch")
    return new


def _buffer(module: nn.Module, key: str, where: str) -> Tensor:
    buffers = dict(module.named_buffers(recurse=False))
    if key not in buffers:
        raise UserError(where, f"{type(module).__name__} has no buffer {key!r}", allowed=buffers, given=key)
    return buffers[key]
