"""A plain network as one Python file that needs only torch: constructor calls, then the traced forward."""

from __future__ import annotations

import inspect
import keyword
import math
import textwrap
from types import ModuleType
from typing import Any

import torch
from torch import fx, nn

from espalier.export.errors import ExportError
from espalier.export.forward import forward_source

SOURCE_TOLERANCE = 1e-6
"""The rebuilt network runs the same operators on the same values; only the order of threaded sums may differ."""

_LIBRARIES = ("torch", "_operator", "operator", "builtins", "math")

_TEMPLATE = '''"""{class_name}: a stand-alone network that needs only torch. Its weights are in model.safetensors."""

{imports}


def _add(root, path, part):
    """Put `part` (a module, parameter or buffer) under `root` at the dotted `path`; `path` is its state_dict key."""
    *parents, name = path.split(".")
    for parent in parents:
        if parent not in dict(root.named_children()):
            root.add_module(parent, nn.Module())
        root = root.get_submodule(parent)
    if isinstance(part, nn.Module):
        root.add_module(name, part)
    elif isinstance(part, nn.Parameter):
        root.register_parameter(name, part)
    else:
        root.register_buffer(name, part)


class {class_name}(nn.Module):
    def __init__(self):
        super().__init__()
{parts}

{forward}
'''


def python_source(model: fx.GraphModule, class_name: str) -> str:
    """The source of a class `class_name(nn.Module)`, without arguments, that computes what `model` computes.

    Each `torch.nn` leaf becomes one constructor call, made from the signature of its `__init__` and its attributes of
    the same names. Arguments equal to their defaults are left out, so that the file works with other torch releases.
    The keys of the class's `state_dict` are those of `model`.

    Raises:
        ExportError: a leaf is not of `torch.nn`, an argument is not a literal, or a function called is not torch's;
            the line names it.
    """
    if not class_name.isidentifier() or keyword.iskeyword(class_name):
        raise ExportError("class_name", f"{class_name!r} is not a Python name", code="invalid")
    forward, names = forward_source(model.graph)
    return _TEMPLATE.format(
        class_name=class_name,
        imports="\n".join(_imports(names)),
        parts="\n".join(f"        _add(self, {path!r}, {part})" for path, part in _parts(model).items()),
        forward=textwrap.indent(forward, "    "),
    )


def check_source(source: str, class_name: str, model: fx.GraphModule, example: torch.Tensor) -> None:
    """Run `source` by itself, load the weights of `model` into its class and compare their outputs on `example`.

    Both run in eval mode on the CPU; `model` must already be there and in eval mode.

    Raises:
        ExportError: the keys, shapes or dtypes of the states differ, or the outputs do; or the outputs of `model`
        differ
            from one run to the next.
    """
    namespace: dict[str, Any] = {"__name__": class_name}
    exec(compile(source, f"<source of {class_name}>", "exec"), namespace)
    rebuilt: nn.Module = namespace[class_name]().eval()
    expected, got = _layout(model), _layout(rebuilt)
    if expected != got:
        differing = sorted(key for key in expected.keys() | got.keys() if expected.get(key) != got.get(key))
        raise ExportError(differing[0], f"weight differs in the written source, as do {len(differing) - 1} others")
    rebuilt.load_state_dict(model.state_dict())
    with torch.no_grad():
        want, again, have = model(example), model(example), rebuilt(example)
    if not _close(want, again):
        problem = "the network's outputs are random, so that no file can be checked against it"
        raise ExportError(class_name, problem, code="unsupported")
    if not _close(want, have):
        error = (want - have).abs().max().item()
        raise ExportError(class_name, f"the written source gives outputs that differ by {error:.3g} from the network's")


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=SOURCE_TOLERANCE, atol=SOURCE_TOLERANCE, equal_nan=True)


def _layout(model: nn.Module) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {key: (tensor.shape, tensor.dtype) for key, tensor in model.state_dict().items()}


def _imports(names: dict[str, Any]) -> list[str]:
    """Import lines for the global names that the forward uses."""
    lines = ["import torch", "from torch import nn"]
    for name, value in sorted(names.items()):
        if name == "torch":
            continue
        if isinstance(value, float):
            lines.append(f"from math import {name}")  # fx gives names to two floats, inf and nan
        elif value is type(None):
            lines.append(f"{name} = type(None)")
        else:
            lines.append(_import_line(name, value))
    return lines


def _import_line(name: str, value: Any) -> str:
    module = value.__name__ if isinstance(value, ModuleType) else str(getattr(value, "__module__", None))
    if module.split(".")[0] not in _LIBRARIES:
        problem = f"is called in the network but belongs to {module}, not to torch"
        raise ExportError(name, problem, code="unsupported")
    return (
        f"import {module} as {name}"
        if isinstance(value, ModuleType)
        else f"from {module} import {value.__name__} as {name}"
    )


def _parts(model: fx.GraphModule) -> dict[str, str]:
    """The expression that makes each module, parameter and buffer of the graph, by its path."""
    parts: dict[str, str] = {}
    for node in model.graph.nodes:
        path = str(node.target)
        if node.op == "call_module" and path not in parts:
            parts[path] = _constructor(path, model.get_submodule(path))
        elif node.op == "get_attr" and path not in parts:
            parts[path] = _tensor(path, model)
    return parts


def _constructor(path: str, module: nn.Module) -> str:
    kind = type(module)
    if getattr(nn, kind.__name__, None) is not kind:
        problem = f"is a {kind.__module__}.{kind.__qualname__}, not a layer of torch.nn"
        raise ExportError(path, problem, code="unsupported")
    arguments = []
    for argument in inspect.signature(kind).parameters.values():
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD) or argument.name in ("device", "dtype"):
            continue
        value = _value(path, module, argument)
        if argument.default is argument.empty:
            arguments.append(_literal(path, argument.name, value))
        elif not _same(value, argument.default):
            arguments.append(f"{argument.name}={_literal(path, argument.name, value)}")
    return f"nn.{kind.__name__}({', '.join(arguments)})"


def _value(path: str, module: nn.Module, argument: inspect.Parameter) -> Any:
    """The value that `module` was given for `argument`, read from its attribute of that name."""
    if not hasattr(module, argument.name):
        problem = f"{type(module).__name__} has no attribute for its argument {argument.name!r}"
        raise ExportError(path, problem, code="unsupported")
    value = getattr(module, argument.name)
    if argument.name != "bias":
        return value
    # A norm without scale has no shift either, whatever it was given; older torch has no `bias` argument there.
    without_weights = getattr(module, "affine", True) is False or getattr(module, "elementwise_affine", True) is False
    return argument.default if without_weights else value is not None


def _same(value: Any, default: Any) -> bool:
    if isinstance(value, tuple) and type(default) is int:  # torch.nn keeps a size of 1 as (1, 1)
        return value == (default,) * len(value)
    return type(value) is type(default) and bool(value == default)


def _literal(path: str, name: str, value: Any) -> str:
    if isinstance(value, tuple | list):
        items = [_literal(path, name, item) for item in value]
        return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
    if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
        return repr(value)
    problem = f"argument {name!r} cannot be written as a literal ({type(value).__name__})"
    raise ExportError(path, problem, code="unsupported")


def _tensor(path: str, model: fx.GraphModule) -> str:
    """An expression for a parameter or buffer that the graph reads directly; its values come with the weights."""
    *_, name = path.split(".")
    owner = model.get_submodule(path.rpartition(".")[0])
    tensor = getattr(owner, name)
    if path not in model.state_dict():
        raise ExportError(path, "is read in the network but missing from its state_dict", code="unsupported")
    empty = f"torch.zeros({tuple(tensor.shape)}, dtype={tensor.dtype})"
    return f"nn.Parameter({empty})" if isinstance(tensor, nn.Parameter) else empty
