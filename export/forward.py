"""The forward method of a traced network, made readable: short names, layers called by their path."""

from __future__ import annotations

import ast
import copy
from typing import Any

from torch import fx

from espalier.export.errors import ExportError


def forward_source(graph: fx.Graph) -> tuple[str, dict[str, Any]]:
    """The source of `forward(self, x)` for a graph with one input, and the global names that it uses.

    fx gives every value its own name and sets it to None after its last use, so that activations are freed early. Here
    the name is reused for the next value instead, which frees them just as early with less code.

    Raises:
        ExportError: the graph has no input or several.
    """
    graph = copy.deepcopy(graph)
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1:
        problem = f"takes {len(inputs)} inputs ({', '.join(map(str, inputs))}), must take one"
        raise ExportError("forward", problem, code="unsupported")
    for node in graph.nodes:
        node.type = None  # annotations refer to imports of the traced file, which the written one does not have
    inputs[0].target = inputs[0].name
    code = graph.python_code("self")
    function = ast.parse(code.src.strip()).body[0]
    assert isinstance(function, ast.FunctionDef)
    function = _LayerCalls().visit(function)
    function.body = [*ast.parse("layer = self.get_submodule").body, *_with_short_names(function)]
    used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    return ast.unparse(function), {name: value for name, value in code.globals.items() if name in used}


class _LayerCalls(ast.NodeTransformer):
    """`getattr(self.body, "0").conv(x)` becomes `layer("body.0.conv")(x)`."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        path = _path_below_self(node.func)
        if path:
            node.func = ast.parse(f"layer({path!r})", mode="eval").body
        return node


def _path_below_self(node: ast.expr) -> str | None:
    """The dotted path that a chain of attributes and `getattr`s takes from `self`; None for anything else."""
    if isinstance(node, ast.Name):
        return "" if node.id == "self" else None
    if isinstance(node, ast.Attribute):
        owner, name = node.value, node.attr
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
        owner, name = node.args[0], ast.literal_eval(node.args[1])
    else:
        return None
    path = _path_below_self(owner)
    return None if path is None else f"{path}.{name}".lstrip(".")


def _with_short_names(function: ast.FunctionDef) -> list[ast.stmt]:
    """The statements of `function` with its values named x, x1, x2, ..., each name reused after its last use."""
    new: dict[str, str] = {function.args.args[1].arg: "x"}
    function.args.args[1].arg = "x"
    statements: list[ast.stmt] = []
    waiting: ast.Assign | None = None  # its target gets a name once it is known which names it frees

    def name_target(dead: set[str]) -> None:
        nonlocal waiting
        if waiting is None:
            return
        target = waiting.targets[0]
        assert isinstance(target, ast.Name)
        for name in dead - {target.id}:
            del new[name]
        taken = set(new.values())
        short = next(name for name in ("x", *(f"x{i}" for i in range(1, len(taken) + 1))) if name not in taken)
        if target.id not in dead:
            new[target.id] = short
        target.id, waiting = short, None

    for statement in function.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):  # a = b = None
            name_target({target.id for target in statement.targets if isinstance(target, ast.Name)})
            continue
        name_target(set())
        source = statement.value if isinstance(statement, ast.Assign) else statement
        for node in ast.walk(source) if source else ():
            if isinstance(node, ast.Name):
                node.id = new.get(node.id, node.id)
        waiting = statement if isinstance(statement, ast.Assign) else None
        statements.append(statement)
    return statements
