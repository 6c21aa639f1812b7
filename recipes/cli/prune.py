"""The command `nas prune`."""

from __future__ import annotations

from typing import Annotated

import typer

from espalier.recipes.cli.options import (
    AsJson,
    Data,
    Inputs,
    InputShape,
    Output,
    Pretrained,
    Seed,
    Size,
    TestData,
    Weights,
    network_inputs,
    print_result,
    required_output,
    settings_of,
)
from espalier.recipes.commands import defaults


def prune(
    model: Annotated[
        str,
        typer.Argument(help="timm:NAME, FILE.py:FUNCTION, architectures/ID of a run, or a folder of nas prune."),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, such as train.epochs=5 method.alpha=0.9.")
    ] = None,
    method: Annotated[str, typer.Option(help="What is removed, and when (see nas ls).")] = defaults.PRUNING_METHOD,
    target: Annotated[
        str | None, typer.Option(help="sparsity=0.9; or an upper limit: macs=0.5, params=0.5, latency_ms=3.")
    ] = None,
    pattern: Annotated[str | None, typer.Option(help="ZEROS:GROUP, such as 2:4, instead of a target.")] = None,
    allocation: Annotated[
        str | None,
        typer.Option(help="How zeros are distributed over layers: uniform, erk, global, lamp, obs, lgreco."),
    ] = None,
    include: Annotated[list[str] | None, typer.Option(help="Pattern of layer names to prune; repeatable.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Pattern of layer names to keep; repeatable.")] = None,
    data: Data = defaults.DATA,
    test_data: TestData = None,
    size: Size = None,
    scale: Annotated[
        int | None, typer.Option(help="Super-resolution by this factor; --data are images of any size.")
    ] = None,
    input_shape: InputShape = None,
    inputs: Inputs = None,
    weights: Weights = None,
    pretrained: Pretrained = False,
    output: Output = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the pruning in the folder.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be pruned; train and write nothing.")
    ] = False,
    seed: Seed = defaults.SEED,
    as_json: AsJson = False,
) -> None:
    """Prune a given network to a target, fine-tune it, write it, and compare it with the dense one."""
    from espalier.recipes.commands.prune.command import preview, prune_network, prune_request
    from espalier.recipes.commands.prune.table import result_text

    request = prune_request(
        model,
        method=method,
        target=target,
        pattern=pattern,
        allocation=allocation,
        include=include or (),
        exclude=exclude or (),
        data=data,
        test_data=test_data,
        size=size,
        scale=scale,
        inputs=network_inputs(input_shape, inputs),
        weights=weights,
        pretrained=pretrained,
        seed=seed,
        overrides=settings_of(overrides),
    )
    if dry_run:
        found = preview(request)
        print_result(found.to_dict() if as_json else str(found), as_json)
        return
    result = prune_network(request, required_output(output, "the folder to write"), resume=resume)
    print_result(result.to_dict() if as_json else result_text(result), as_json)
