"""The command `nas quantize`."""

from __future__ import annotations

from typing import Annotated

import typer

from espalier.recipes.cli.options import (
    AsJson,
    Data,
    Device,
    Dim,
    Inputs,
    InputShape,
    Output,
    Pretrained,
    Seed,
    Size,
    TestData,
    Threads,
    Weights,
    names,
    network_inputs,
    print_result,
    required_output,
    settings_of,
)
from espalier.recipes.commands import defaults


def quantize(
    model: Annotated[
        str,
        typer.Argument(
            help="An ONNX file, timm:NAME, FILE.py:FUNCTION, architectures/ID of a run, or a folder of nas prune."
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, such as calibration_images=512 profile.seconds=5.")
    ] = None,
    methods: Annotated[str | None, typer.Option(help="Forms separated by commas (see nas ls) [all].")] = None,
    max_drop: Annotated[
        float,
        typer.Option(help="Largest loss of accuracy, as a share; the upper bound of the measured loss must be below."),
    ] = defaults.MAX_DROP,
    data: Data = defaults.DATA,
    test_data: TestData = None,
    size: Size = None,
    input_shape: InputShape = None,
    inputs: Inputs = None,
    dim: Dim = None,
    weights: Weights = None,
    pretrained: Pretrained = False,
    device: Device = defaults.DEVICE,
    threads: Threads = None,
    output: Output = None,
    keep_all: Annotated[bool, typer.Option("--keep-all", help="Keep the files of all forms.")] = False,
    seed: Seed = defaults.SEED,
    as_json: AsJson = False,
) -> None:
    """Write a network in int8, fp16 and bf16, test and time each form, and keep the best one for the device."""
    from espalier.export.graph_inputs import parse_dims
    from espalier.recipes.commands.quantize.command import quantize as quantize_model
    from espalier.recipes.commands.quantize.table import result_text

    result = quantize_model(
        model,
        required_output(output, "the folder to write"),
        methods=None if methods is None else names(methods),
        max_drop=max_drop,
        data=data,
        test_data=test_data,
        size=size,
        inputs=network_inputs(input_shape, inputs),
        dims=parse_dims(dim or ()),
        weights=weights,
        pretrained=pretrained,
        device=device,
        threads=threads,
        keep_all=keep_all,
        seed=seed,
        overrides=settings_of(overrides),
    )
    print_result(result.to_dict() if as_json else result_text(result), as_json)
