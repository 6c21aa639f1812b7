"""The table of the forms of a network, which one is kept, and why the others are not."""

from __future__ import annotations

from espalier.export.comparison import Timed
from espalier.export.quantize.source import Source
from espalier.nas.intervals import Proportion
from espalier.nas.paired import PairedDrop
from espalier.recipes.commands.quantize.result import QuantizeResult

_CARD = """# A network in {kept}

{sentence}

| {header} |
|---|{rules}
{rows}

{reasons}

Accuracy and drop from fp32 are measured on {test_images} test images, with 95 % intervals (that of the drop is a score
interval of paired proportions). The time is the ratio to fp32 in the same rounds, with its 95 % interval.

## ONNX Runtime

```python
import onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
outputs = session.run(["{output}"], {{{feed}}})[0]
```

where {description}. {batch}Floating-point inputs and outputs are always float32.
"""

HEADER = ("form", "bytes", "accuracy", "drop", "outputs differ by", "time", "")


def rows(result: QuantizeResult) -> list[tuple[str, ...]]:
    """A row for each form, in the columns of `HEADER`."""
    base = result.float32.size_bytes or 1
    return [
        (
            form.name,
            "" if form.size_bytes is None else f"{form.size_bytes:,} (x {form.size_bytes / base:.2f})",
            _interval(form.accuracy),
            _interval(form.drop),
            "" if form.error is None else f"{form.error:.1%} of their spread",
            _time(form.timed),
            "kept" if form.name == result.kept else "",
        )
        for form in result.forms
    ]


def sentence(result: QuantizeResult) -> str:
    """What is kept, with its numbers."""
    kept = result.best
    where = f"{result.environment.get('provider')} ({result.int8.reason})"
    if kept.timed is None:
        return f"fp32 is kept on {where}: no other form is faster within a drop of {result.max_drop:.2%}."
    return (
        f"{kept.name} is kept: it takes {_ratio(kept.timed)} of fp32's time on {where}, and its accuracy drops by "
        f"{_interval(kept.drop)}, within {result.max_drop:.2%}."
    )


def reasons(result: QuantizeResult) -> list[str]:
    """Why each of the other forms is not kept."""
    lines = []
    for form in result.forms[1:]:
        if form.refused is not None:
            lines.append(f"{form.name}: {form.refused}.")
        elif form.name != result.kept:
            lines.append(f"{form.name}: acceptable, but {result.kept} is faster, or as fast and more accurate.")
    return lines


def result_text(result: QuantizeResult) -> str:
    """The table for a terminal."""
    table = [HEADER, *rows(result)]
    widths = [max(len(row[i]) for row in table) for i in range(len(HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([*lines, *reasons(result), sentence(result), f"folder: {result.folder}"])


def model_card(result: QuantizeResult, source: Source, description: str) -> str:
    """The README of the folder, in Markdown."""
    return _CARD.format(
        kept=result.kept,
        sentence=sentence(result),
        header=" | ".join(HEADER),
        rules="---|" * (len(HEADER) - 1),
        rows="\n".join(f"| {' | '.join(row)} |" for row in rows(result)),
        reasons="\n".join(f"- {line}" for line in reasons(result)),
        test_images=f"{result.test_images:,}",
        feed=", ".join(f'"{one.name}": {"images" if source.takes_images else one.name}' for one in source.inputs),
        output=source.output,
        batch=f"The batch is {source.batch}. " if source.batch else "",
        description=description,
    )


def _interval(share: Proportion | PairedDrop | None) -> str:
    return "" if share is None else f"{share.value:.2%} [{share.low:.2%}, {share.high:.2%}]"


def _ratio(timed: Timed) -> str:
    low, high = timed.ci95
    return f"{timed.ratio:.2f} [{low:.2f}, {high:.2f}]"


def _time(timed: Timed | None) -> str:
    if timed is None:
        return ""
    measurement = timed.measurement
    return f"x {_ratio(timed)} of fp32, {measurement.latency.p50:.3f} ms {measurement.verdict}"
