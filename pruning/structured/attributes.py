"""Modules whose code keeps channel counts of its own: heads of an attention, parts of a split convolution.

Modules are recognised by their attributes (those of timm's layers and of many that imitate them), not by class.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from espalier.pruning.structured.groups import Attribute, Member, Units
from espalier.pruning.structured.layers import channels
from espalier.pruning.weights import PRUNABLE

PROJECTIONS = ("proj", "out_proj", "project")
SEPARATE = (("q", "k", "v"), ("q", "kv"), ("q_proj", "k_proj", "v_proj"), ("queries", "keys", "values"))
PER_HEAD = {"attention_biases": 0, "relative_position_bias_table": 1, "temperature": 0, "logit_scale": 0}
"""Parameters of an attention module with one entry for each head, and along which dimension."""
COUNTED = ("num_heads", "attn_dim", "key_attn_dim", "val_attn_dim", "all_head_dim")
"""Attributes of an attention module that are multiples of the number of heads."""


def attention_heads(model: nn.Module) -> Iterator[Units]:
    """The heads of every attention with `num_heads` and projections of queries, keys, values and outputs."""
    for name, module in model.named_modules():
        heads = getattr(module, "num_heads", None)
        output = next((key for key in PROJECTIONS if isinstance(getattr(module, key, None), nn.Module)), None)
        if type(heads) is not int or heads < 2 or output is None or isinstance(module, nn.MultiheadAttention):
            continue
        inputs = _inputs(module, heads)
        if inputs is None:
            continue
        members = [
            Member((part, "out"), layout)
            for key, layout in inputs.items()
            for part, layer in _layers(f"{name}.{key}".lstrip("."), getattr(module, key))
            if channels(layer, "out") == len(layout)
        ]
        into = [
            Member((part, "in"), _blocks(width, heads))
            for part, layer in _layers(f"{name}.{output}".lstrip("."), getattr(module, output))
            if isinstance(layer, PRUNABLE) and (width := channels(layer, "in") or 1) % heads == 0
        ]
        if len(into) != 1:
            continue
        for key, dim in PER_HEAD.items():
            parameter = module._parameters.get(key)
            if parameter is not None and parameter.shape[dim] == heads:
                members.append(Member((f"{name}.{key}".lstrip("."), str(dim)), torch.arange(heads)))
        attributes = tuple(
            Attribute(name, key, value // heads)
            for key in COUNTED
            if type(value := getattr(module, key, None)) is int and value % heads == 0
        )
        size = int((into[0].unit_of == 0).sum())
        yield Units(name, "heads", heads, (*members, *into), size, attributes)


def hidden_layers(model: nn.Module) -> Iterator[Units]:
    """The hidden channels of every module whose only layers with weights are `fc1` and `fc2`."""
    for name, module in model.named_modules():
        first, second = getattr(module, "fc1", None), getattr(module, "fc2", None)
        if not isinstance(first, PRUNABLE) or not isinstance(second, PRUNABLE):
            continue
        own = {id(parameter) for layer in (first, second) for parameter in layer.parameters()}
        width = channels(first, "out") or 0
        grouped = max(getattr(layer, "groups", 1) for layer in (first, second)) > 1
        if width != channels(second, "in") or grouped or any(id(p) not in own for p in module.parameters()):
            continue
        prefix = f"{name}.".lstrip(".")
        each = torch.arange(width)
        members = (Member((f"{prefix}fc1", "out"), each), Member((f"{prefix}fc2", "in"), each))
        yield Units(f"{prefix}fc1", "channels", width, members)


def tied_chunks(model: nn.Module) -> Iterator[Member]:
    """Layers whose outputs are split into equal chunks by a fixed width: all chunks must lose the same channels.

    As in Res2Net's block: `conv1` has `width` output channels for each of `convs`, and for the chunk passed through.
    """
    for name, module in model.named_modules():
        width, first = getattr(module, "width", None), getattr(module, "conv1", None)
        if (
            type(width) is int
            and isinstance(first, nn.Conv2d)
            and isinstance(getattr(module, "convs", None), nn.ModuleList)
        ):
            yield Member((f"{name}.conv1".lstrip("."), "out"), torch.arange(first.out_channels) % width)


def update_channel_counts(model: nn.Module) -> None:
    """Update channel counts that modules store in attributes after their layers have changed."""
    module: Any
    for module in model.modules():
        parts = [part for part in module.children() if isinstance(part, nn.Conv2d)]
        splits = getattr(module, "splits", None)
        if isinstance(module, nn.ModuleDict) and isinstance(splits, list) and len(parts) == len(splits):
            vars(module)["splits"] = [part.in_channels for part in parts]  # timm's MixedConv2d
        shape, scale = getattr(module, "shape", None), module._parameters.get("scale")
        if isinstance(shape, tuple) and scale is not None and scale.ndim == 1:  # timm's Scale of MetaFormers
            module.shape = (len(scale), *shape[1:])
        convolutions = getattr(module, "convs", None)
        if (
            type(getattr(module, "width", None)) is int
            and isinstance(convolutions, nn.ModuleList)
            and len(convolutions)
        ):
            module.width = convolutions[0].in_channels  # as in tied_chunks


def _inputs(module: nn.Module, heads: int) -> dict[str, Tensor] | None:
    """The head that each output belongs to, for the projections of queries, keys and values, by attribute."""
    for keys in (("qkv",), *SEPARATE):
        parts = [getattr(module, key, None) for key in keys]
        if not all(isinstance(part, nn.Module) for part in parts):
            continue
        found = {}
        for key, part in zip(keys, parts, strict=True):
            widths = [channels(layer, "out") for _, layer in _layers(key, part) if isinstance(layer, PRUNABLE)]
            if len(widths) != 1 or not widths[0] or widths[0] % heads:
                return None
            blocked = key != "qkv" or hasattr(module, "key_dim")  # query, key and value of one head are adjacent
            if blocked:
                found[key] = _blocks(widths[0], heads)
            elif widths[0] % (3 * heads) == 0:
                found[key] = _blocks(widths[0] // 3, heads).repeat(3)
            else:
                return None
        return found
    return None


def _blocks(width: int, heads: int) -> Tensor:
    return torch.arange(width) // (width // heads)


def _layers(name: str, module: nn.Module | None) -> list[tuple[str, nn.Module]]:
    """The layers with channels inside a module (possibly the module itself), by name."""
    if module is None:
        return []
    found = [(f"{name}.{inner}".rstrip("."), layer) for inner, layer in module.named_modules()]
    return [(part, layer) for part, layer in found if channels(layer, "out") is not None]
