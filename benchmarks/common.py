"""What the benchmarks share: interleaved timing, the spread of a ratio, and a table in Markdown."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

Times = Mapping[str, list[float]]
"""Seconds of each contestant, round by round."""


def interleave(
    contestants: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Time the contestants A B C, A B C, ..., so that a slow moment of the machine meets all of them alike.

    Args:
        contestants: by name; each must have finished its work (on a GPU, waited for it) when it returns.
        rounds: timed rounds. warmup: rounds before them, whose times are dropped.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for index in range(warmup + rounds):
        for name, work in contestants.items():
            started = time.perf_counter()
            work()
            if index >= warmup:
                times[name].append(time.perf_counter() - started)
    return times


def mean_ratio(times: Sequence[float], baseline: Sequence[float], *, resamples: int = 2000) -> str:
    """Ratio of the means with its 95 % bootstrap interval over the rounds, which are drawn as pairs."""
    return _ratio(np.mean, times, baseline, resamples)


def median_ratio(times: Sequence[float], baseline: Sequence[float], *, resamples: int = 2000) -> str:
    """Ratio of the medians with its 95 % bootstrap interval over the rounds, which are drawn as pairs."""
    return _ratio(np.median, times, baseline, resamples)


def median_ms(seconds: Sequence[float]) -> str:
    """Median with the smallest and the largest, in milliseconds."""
    low, middle, high = 1e3 * np.quantile(seconds, (0, 0.5, 1))
    return f"{middle:.1f} ({low:.1f}-{high:.1f})"


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table with aligned columns."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    print(f"\n{title}\n")
    for row in (header, ["-" * width for width in widths], *rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")


def print_machine(threads: int) -> None:
    """Say in one line where the numbers come from."""
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} CPUs, {threads} thread(s)")


def _ratio(statistic: Callable[..., np.ndarray], times: Sequence[float], baseline: Sequence[float], n: int) -> str:
    pairs = np.array([times, baseline])
    drawn = pairs[:, np.random.default_rng(0).integers(pairs.shape[1], size=(n, pairs.shape[1]))]
    above, below = statistic(drawn, axis=2)
    low, high = np.quantile(above / below, (0.025, 0.975))
    return f"{statistic(times) / statistic(baseline):.2f} [{low:.2f}, {high:.2f}]"
