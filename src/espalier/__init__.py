"""Find and shrink neural networks for real hardware.

What the command line `nas` does, as functions with the same defaults. Bad input raises `UserError`. Each name is
imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from espalier.nas.lazy import lazy_names

if TYPE_CHECKING:
    from espalier.export.network import export_network as export
    from espalier.nas.architecture import Architecture
    from espalier.nas.errors import UserError
    from espalier.nas.measurement import Estimate, Measurement
    from espalier.nas.space import SearchSpace
    from espalier.recipes.commands.lut.command import build_latency_table
    from espalier.recipes.commands.profile.command import compare, profile
    from espalier.recipes.commands.prune.command import prune
    from espalier.recipes.commands.quantize.command import quantize
    from espalier.recipes.commands.rank.command import rank
    from espalier.recipes.commands.run import load_run, run
    from espalier.recipes.commands.run_result import Run
    from espalier.recipes.commands.score import score

__version__ = "0.2.0"

__all__ = [
    "Architecture",
    "Estimate",
    "Measurement",
    "Run",
    "SearchSpace",
    "UserError",
    "__version__",
    "build_latency_table",
    "compare",
    "export",
    "load_run",
    "profile",
    "prune",
    "quantize",
    "rank",
    "run",
    "score",
]

_COMMANDS = "espalier.recipes.commands"
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Architecture": "espalier.nas.architecture",
        "Estimate": "espalier.nas.measurement",
        "Measurement": "espalier.nas.measurement",
        "Run": f"{_COMMANDS}.run_result",
        "SearchSpace": "espalier.nas.space",
        "UserError": "espalier.nas.errors",
        "build_latency_table": f"{_COMMANDS}.lut.command",
        "compare": f"{_COMMANDS}.profile.command",
        "export": "espalier.export",
        "load_run": f"{_COMMANDS}.run",
        "profile": f"{_COMMANDS}.profile.command",
        "prune": f"{_COMMANDS}.prune.command",
        "quantize": f"{_COMMANDS}.quantize.command",
        "rank": f"{_COMMANDS}.rank.command",
        "run": f"{_COMMANDS}.run",
        "score": f"{_COMMANDS}.score",
    },
)
