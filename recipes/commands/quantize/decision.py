"""Which form of a network is kept: one that is faster on the device and accurate enough, else float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from espalier.export.comparison import Timed
from espalier.nas.intervals import Proportion
from espalier.nas.paired import PairedDrop

FP32 = "fp32"


@dataclass(frozen=True)
class Form:
    """What is known of one form of the network.

    Attributes:
        name: `fp32`, or a method.
        size_bytes: of its file.
        accuracy: on the test images.
        drop: from float32's, on the same images.
        held_back: accuracy on the images held back, which decides between forms of equal speed.
        error: root mean square of its outputs' difference from float32's, as a share of the spread of those over
            images.
        agreement: share of the test images for which both predict the same class.
        timed: against float32, in turns on the device.
        refused: why it cannot be kept; None if it can.
    """

    name: str
    size_bytes: int | None = None
    accuracy: Proportion | None = None
    drop: PairedDrop | None = None
    held_back: float | None = None
    error: float | None = None
    agreement: float | None = None
    timed: Timed | None = None
    refused: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; the latency under its own name, without the name of a temporary file."""
        plain = asdict(self)
        timed = plain.pop("timed")
        if timed is not None:
            del timed["file"]
        return plain | {"latency": timed}


def objection(drop: PairedDrop, timed: Timed, *, max_drop: float, cause: str) -> str | None:
    """Why a form cannot be kept; None if it can.

    Args:
        drop: of its accuracy.
        timed: its time, against float32.
        max_drop: the upper bound of the drop must not be above it.
        cause: a possible reason why it is not faster.
    """
    if drop.high > max_drop:
        loses = f"its accuracy drops by {drop.value:.2%} [{drop.low:.2%}, {drop.high:.2%}] on {drop.count} images"
        return f"{loses}, {'which is' if drop.value > max_drop else 'which may be'} more than {max_drop:.2%}"
    if timed.faster is not True:
        low, high = timed.ci95
        slower = "slower" if timed.faster is False else "not measurably faster"
        return f"it is {slower} than fp32 (time x {timed.ratio:.2f} [{low:.2f}, {high:.2f}]): {cause}"
    return None


def chosen(forms: Sequence[Form]) -> str:
    """The name of the form to keep: the fastest that can be kept, or `fp32`.

    Forms whose intervals overlap that of the fastest count as equally fast. Among them the one that is most accurate
    on the images held back is taken, so that test images are not used for a choice.
    """
    able = [(form.timed, form) for form in forms if form.refused is None and form.timed is not None]
    if not able:
        return FP32
    fastest, _ = min(able, key=lambda pair: pair[0].ratio)
    as_fast = [form for timed, form in able if timed.ci95[0] <= fastest.ci95[1]]
    return max(as_fast, key=lambda form: form.held_back or 0.0).name
