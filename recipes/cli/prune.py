"""The command `nas prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from espalier.recipes.cli.options import AsJson, Data, Seed, Size, answer


def prune(
    model: Annotated[
        str,
        typer.Argument(help="timm:NAME, FILE.py:FUNCTION, a run's architectures/ID, or a folder that this wrote."),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, such as train.epochs=5 method.alpha=0.9.")
    ] = None,
    method: Annotated[str, typer.Option(help="What goes, and when (see nas ls).")] = "magnitude",
    target: Annotated[
        str | None, typer.Option(help="sparsity=0.9; or what is left at most: macs=0.5, params=0.5, latency_ms=3.")
    ] = None,
    pattern: Annotated[str | None, typer.Option(help="ZEROS:GROUP, such as 2:4, instead of a target.")] = None,
    allocation: Annotated[
        str | None, typer.Option(help="How layers share zeros: uniform, erk, global, lamp, obs, lgreco.")
    ] = None,
    include: Annotated[list[str] | None, typer.Option(help="Pattern of names of layers to prune; repeatable.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Pattern of names of layers to keep; repeatable.")] = None,
    data: Data = "digits",
    test_data: Annotated[Path | None, typer.Option(help="Test images, where --data does not hold them.")] = None,
    size: Size = None,
    scale: Annotated[
        int | None, typer.Option(help="The task is super-resolution by this factor; --data is images of any size.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="The network's weights: .safetensors, .npz, .pt or .pth.")
    ] = None,
    pretrained: Annotated[bool, typer.Option(help="Take timm's own weights.")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder to write; new or empty.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the pruning in the folder.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Print what would be pruned; train and write nothing.")] = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Prune a given network to a target, train it again, write it, and compare it with the dense one."""
    from espalier.nas.errors import UserError
    from espalier.recipes.cli.console import announce, track
    from espalier.recipes.commands.prune.command import Request, preview, prune_network
    from espalier.recipes.commands.prune.table import preview_text, result_text
    from espalier.recipes.config.loading import apply_override
    from espalier.recipes.config.prune_settings import data_section, prune_settings
    from espalier.recipes.inputs.model_source import given_network

    document: dict[str, Any] = {
        "method": {"name": method},
        "target": target,
        "pattern": pattern,
        "allocation": allocation,
        "seed": seed,
        "data": data_section(data, test_data, size),
    }
    document |= {key: value for key, value in (("include", include), ("exclude", exclude)) if value}
    if scale is not None:
        document["super_resolution"] = {"scale": scale}
    for override in overrides or []:
        apply_override(document, override)
    request = Request(
        given_network(model, weights=weights, pretrained=pretrained, scale=scale), prune_settings(document)
    )
    if dry_run:
        found = preview(request)
        answer(found if as_json else preview_text(found), as_json)
        return
    if output is None:
        raise UserError("--output", "is missing: the folder to write")
    result = prune_network(request, output, resume=resume, track=track, announce=announce)
    answer(result if as_json else result_text(result, output), as_json)
