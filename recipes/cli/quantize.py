"""The command `nas quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from espalier.recipes.cli.options import AsJson, Data, Seed, Size, Threads, answer, names


def quantize(
    model: Annotated[
        str,
        typer.Argument(
            help="An ONNX file, timm:NAME, FILE.py:FUNCTION, a run's architectures/ID, or a folder of nas prune."
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, such as calibration_images=512 profile.seconds=5.")
    ] = None,
    methods: Annotated[str | None, typer.Option(help="Forms joined by commas (see nas ls) [all].")] = None,
    max_drop: Annotated[
        float, typer.Option(help="Accuracy to lose at most, as a share; the drop's upper bound must keep it.")
    ] = 0.01,
    data: Data = "digits",
    test_data: Annotated[Path | None, typer.Option(help="Test images, where --data does not hold them.")] = None,
    size: Size = None,
    weights: Annotated[
        Path | None, typer.Option(help="The network's weights: .safetensors, .npz, .pt or .pth.")
    ] = None,
    pretrained: Annotated[bool, typer.Option(help="Take timm's own weights.")] = False,
    device: Annotated[str, typer.Option(help="Where to run (see nas ls).")] = "local",
    threads: Threads = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder to write; new or empty.")] = None,
    keep_all: Annotated[bool, typer.Option(help="Keep the files of all forms.")] = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Write a network in int8, fp16 and bf16, judge and time each form, and keep the one that wins on the device."""
    from espalier.nas.errors import UserError
    from espalier.recipes.cli.console import announce, track
    from espalier.recipes.commands.quantize.command import quantize_network, request_for
    from espalier.recipes.commands.quantize.table import result_text
    from espalier.recipes.config.loading import apply_override
    from espalier.recipes.config.prune_settings import data_section
    from espalier.recipes.config.quantize_settings import quantize_settings

    document: dict[str, Any] = {
        "max_drop": max_drop,
        "keep_all": keep_all,
        "seed": seed,
        "data": data_section(data, test_data, size),
        "profile": {"device": device, "threads": threads},
    }
    if methods is not None:
        document["methods"] = names(methods)
    for override in overrides or []:
        apply_override(document, override)
    settings = quantize_settings(document)
    request = request_for(model, settings, weights=weights, pretrained=pretrained)
    if output is None:
        raise UserError("--output", "is missing: the folder to write")
    result = quantize_network(request, output, track=track, announce=announce)
    answer(result if as_json else result_text(result, output), as_json)
