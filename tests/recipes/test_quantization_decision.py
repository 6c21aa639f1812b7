"""Which form is kept, and what is said of the others; numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest

from espalier.export.comparison import Timed
from espalier.export.timing import summarize
from espalier.nas.measurement import Measurement
from espalier.nas.paired import PairedDrop
from espalier.recipes.commands.quantize.decision import FP32, Form, chosen, objection
from espalier.recipes.commands.quantize.trial import half_cause
from espalier.recipes.engine.int8_scheme import scheme_for

AVX2 = {"cpu_architecture": "x86_64", "instructions": ["avx2"]}
VNNI = {"cpu_architecture": "x86_64", "instructions": ["avx2", "avx512_vnni"]}
ARM = {"cpu_architecture": "aarch64", "instructions": ["asimddp"]}


def timed(low: float, ratio: float, high: float) -> Timed:
    measurement = Measurement(summarize([[1.0], [1.0]]), "stable", {})
    faster = None if low <= 1 <= high else high < 1
    return Timed("x.onnx", measurement, (low, ratio, high), ratio, (low, high), faster)


def drop(lost: int, gained: int, count: int) -> PairedDrop:
    first, second = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    first[:lost] = True
    second[lost : lost + gained] = True
    return PairedDrop.of(first, second)


FASTER, SAME, SLOWER = timed(0.6, 0.65, 0.7), timed(0.9, 0.98, 1.01), timed(1.2, 1.4, 1.5)


def test_faster_and_as_accurate_is_not_objected_to() -> None:
    assert objection(drop(20, 20, 10_000), FASTER, max_drop=0.01, cause="") is None


@pytest.mark.parametrize(
    ("drop", "timed", "said"),
    [
        (drop(200, 20, 10_000), FASTER, "its accuracy drops by 1.80% [1.53%, 2.10%] on 10000 images, which is more"),
        # No image is lost of 100, and yet 3.84 / (100 + 3.84) may be.
        (drop(0, 0, 100), FASTER, "drops by 0.00% [-3.70%, 3.70%] on 100 images, which may be more than 1.00%"),
        (drop(0, 0, 10_000), SAME, "it is not measurably faster than fp32 (time x 0.98 [0.90, 1.01]): no VNNI"),
        (drop(0, 0, 10_000), SLOWER, "it is slower than fp32 (time x 1.40 [1.20, 1.50]): no VNNI"),
    ],
)
def test_what_is_said_against_a_form(drop: PairedDrop, timed: Timed, said: str) -> None:
    line = objection(drop, timed, max_drop=0.01, cause="no VNNI")
    assert line is not None
    assert said in line


def test_the_fastest_of_those_that_may_be_is_kept() -> None:
    forms = [
        Form(FP32, held_back=0.9),
        Form("int8-minmax", timed=timed(0.6, 0.65, 0.7), held_back=0.90),
        Form("int8-entropy", timed=timed(0.5, 0.51, 0.52), held_back=0.8, refused="its accuracy drops"),
        Form("fp16", timed=timed(0.8, 0.85, 0.9), held_back=0.95),
    ]
    assert chosen(forms) == "int8-minmax"


def test_of_forms_as_fast_the_images_held_back_decide() -> None:
    forms = [
        Form("int8-minmax", timed=timed(0.6, 0.65, 0.7), held_back=0.90),
        Form("int8-percentile", timed=timed(0.65, 0.66, 0.72), held_back=0.91),
        Form("fp16", timed=timed(0.71, 0.75, 0.8), held_back=0.99),
    ]
    assert chosen(forms) == "int8-percentile"


def test_where_nothing_wins_it_stays_in_fp32() -> None:
    assert chosen([Form(FP32), Form("fp16", refused="cannot be run"), Form("bf16", refused="slower")]) == FP32


@pytest.mark.parametrize(
    ("device", "here", "signed", "reduce_range"),
    [
        (AVX2, AVX2, False, True),
        (VNNI, VNNI, False, False),
        (VNNI, AVX2, False, True),  # or the accuracy computed here would be that of saturated sums
        (AVX2, VNNI, False, True),
        (ARM, AVX2, True, False),
    ],
)
def test_accuracy_here_and_time_there(
    device: dict[str, object], here: dict[str, object], signed: bool, reduce_range: bool
) -> None:
    scheme = scheme_for(device, here)
    assert (scheme.signed, scheme.reduce_range) == (signed, reduce_range)
    assert ("this machine" in scheme.reason) == (device is VNNI and here is AVX2)


def test_why_half_precision_is_no_gain() -> None:
    cpu = {"provider": "CPUExecutionProvider", "instructions": ["avx2"]}
    assert "converts fp16 to fp32" in half_cause("fp16", cpu)
    assert "converts" not in half_cause("fp16", cpu | {"instructions": ["asimdhp"]})
    assert "converts" not in half_cause("fp16", {"provider": "CUDAExecutionProvider"})
