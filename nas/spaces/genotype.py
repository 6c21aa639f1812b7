"""The notation of cells in the DARTS literature, `Genotype(normal=[('sep_conv_3x3', 1), ...], normal_concat=...)`."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

from espalier.nas.errors import UserError
from espalier.nas.spaces.darts_cell import KINDS, NODES

Edges = Sequence[tuple[str, int]]
"""Operation and source of the two edges into node 2, then node 3, 4 and 5."""
_ALL_NODES = ("range(2, 6)", "[2, 3, 4, 5]", "(2, 3, 4, 5)")
_FORM = "not of the form Genotype(normal=[('operation', source), ...], normal_concat=range(2, 6), reduce=..., ...)"


def write(cells: Mapping[str, Edges]) -> str:
    """The notation of both kinds of cell.

    Args:
        cells: the edges by kind.
    """
    parts = (f"{kind}={list(cells[kind])}, {kind}_concat={_ALL_NODES[0]}" for kind in KINDS)
    return f"Genotype({', '.join(parts)})"


def read(text: str, *, where: str) -> dict[str, list[tuple[str, int]]]:
    """The edges of both kinds of cell. The text is parsed, never executed.

    Args:
        text: the notation.
        where: its source, for messages.

    Raises:
        UserError: another form, an output that is not all four nodes, or a node whose two sources are not different
            earlier nodes.
    """
    arguments = _arguments(text, where)
    cells = {}
    for kind in KINDS:
        if ast.unparse(arguments[f"{kind}_concat"]) not in _ALL_NODES:
            raise UserError(
                f"{where}.{kind}_concat", "a cell's output must be all of its nodes", allowed=_ALL_NODES[:1]
            )
        cells[kind] = _edges(arguments[kind], f"{where}.{kind}")
    return cells


def _arguments(text: str, where: str) -> dict[str, ast.expr]:
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:  # ValueError: a null character
        raise UserError(where, f"{text!r} is {_FORM}") from error
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Genotype"):
        raise UserError(where, f"{text!r} is {_FORM}")
    arguments = {str(keyword.arg): keyword.value for keyword in call.keywords}
    if call.args or sorted(arguments) != ["normal", "normal_concat", "reduce", "reduce_concat"]:
        raise UserError(where, f"{text!r} is {_FORM}")
    return arguments


def _edges(expression: ast.expr, where: str) -> list[tuple[str, int]]:
    try:
        edges = [(str(operation), int(source)) for operation, source in ast.literal_eval(expression)]
    except (ValueError, TypeError) as error:
        raise UserError(where, f"must be a list of ('operation', source), not {ast.unparse(expression)}") from error
    if len(edges) != 2 * len(NODES):
        raise UserError(where, f"must have {2 * len(NODES)} edges, two into each of four nodes, not {len(edges)}")
    for i, node in enumerate(NODES):
        first, second = (source for _, source in edges[2 * i : 2 * i + 2])
        if first == second or not {first, second} <= set(range(node)):
            raise UserError(
                where, f"node {node} must have two different earlier nodes as sources, not {first} and {second}"
            )
    return edges
