"""Zero-cost scores: GradSign beside its loop over images, in time and memory, and scores together beside each alone.

Contestants take turns on full-size NAS-Bench-201 cells and one batch of noise. GradSign's baseline is the definition,
one backward pass for each image. "Together" asks one probe for all the scores; "alone" gives each a probe of its own;
neither builds the network, which costs the same in both.
"""

from __future__ import annotations

import argparse
import copy
import subprocess
import sys

import torch
from common import interleave, mean_ratio, median_ms, median_ratio, print_machine, print_table
from torch import Tensor, nn

from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.predictors.zero_cost.epe_nas import EPENAS
from espalier.predictors.zero_cost.fisher import Fisher
from espalier.predictors.zero_cost.grad_norm import GradNorm
from espalier.predictors.zero_cost.gradsign import one_by_one, sign_sums
from espalier.predictors.zero_cost.grasp import GraSP
from espalier.predictors.zero_cost.jacob_cov import JacobCov
from espalier.predictors.zero_cost.l2_norm import L2Norm
from espalier.predictors.zero_cost.naswot import NASWOT
from espalier.predictors.zero_cost.plain import Plain
from espalier.predictors.zero_cost.probe import Probe
from espalier.predictors.zero_cost.score import Score
from espalier.predictors.zero_cost.snip import SNIP
from espalier.predictors.zero_cost.synflow import SynFlow

TEN: tuple[Score, ...] = (
    *(GradNorm(), SNIP(), Plain(), Fisher(), GraSP()),
    *(NASWOT(), JacobCov(), EPENAS(), L2Norm(), SynFlow()),
)
ALL_3X3 = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def batch(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(n, 3, 32, 32, generator=generator), torch.randint(10, (n,), generator=generator)
    return x.to(device), y.to(device)


def network(cell: str, cells: int, device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    space = NasBench201(cells=cells)
    return space.build(space.parse(cell)).to(device).train()


def gradsign_times(options: argparse.Namespace, device: torch.device) -> None:
    rows = []
    for cells, n in ((1, 64), (5, 64)):
        model, (x, y) = network(ALL_3X3, cells, device), batch(n, device)

        def loop(model: nn.Module = model, x: Tensor = x, y: Tensor = y) -> None:
            one_by_one(copy.deepcopy(model), x, y)

        def together(model: nn.Module = model, x: Tensor = x, y: Tensor = y) -> None:
            sign_sums(copy.deepcopy(model), x, y)

        times = interleave({"loop": loop, "ours": together}, rounds=options.rounds)
        speedup = median_ratio(times["loop"], times["ours"])
        rows.append([f"{cells}", f"{n}", median_ms(times["loop"]), median_ms(times["ours"]), speedup])
    print_table(
        "GradSign against one backward pass for each image (aim: at least 2.5 times faster at n = 64)",
        ["cells a stage", "images", "loop ms", "ours ms", "loop / ours [95 %]"],
        rows,
    )


def gradsign_memory() -> None:
    """Peak memory of the process for 16 to 256 images, each in a process of its own."""
    rows = []
    for n in (16, 64, 256):
        script = (
            "import resource, torch; torch.set_num_threads(1); import scores; from pathlib import Path;"
            f"d = torch.device('cpu'); m = scores.network(scores.ALL_3X3, 1, d); x, y = scores.batch({n}, d);"
            "scores.sign_sums(scores.copy.deepcopy(m), x[:16], y[:16]);"
            "a = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; scores.sign_sums(m, x, y);"
            "print(a, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        answer = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=HERE)
        before, after = (int(kib) / 1024 for kib in answer.stdout.split()[-2:])
        rows.append([f"{n}", f"{before:.0f}", f"{after:.0f}"])
    print_table("Peak memory of GradSign, MiB", ["images", "after 16 of them", "after all"], rows)


def together_times(options: argparse.Namespace, device: torch.device) -> None:
    model, (x, y) = network(options.cell, options.cells, device), batch(options.batch, device)
    reads = frozenset().union(*(score.reads for score in TEN))

    def together() -> None:
        probe = Probe(model, x, y, reads=reads)
        for score in TEN:
            score.of(probe)

    contestants = {score.name: (lambda score=score: score(model, x, y)) for score in TEN}
    times = interleave({"together": together, **contestants}, rounds=options.rounds)
    alone = [sum(seconds) for seconds in zip(*(times[score.name] for score in TEN), strict=True)]
    rows = [[score.name, median_ms(times[score.name])] for score in TEN]
    rows += [["the ten alone, summed", median_ms(alone)], ["the ten together", median_ms(times["together"])]]
    print_table(f"Ten scores, {options.batch} images", ["score", "ms"], rows)
    print(f"\ntogether / alone (aim: at most 0.4): {mean_ratio(times['together'], alone)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--cells", type=int, default=5, help="cells a stage, for the ten scores")
    parser.add_argument("--cell", default=ALL_3X3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cpu")
    print_machine(options.threads)
    gradsign_times(options, device)
    gradsign_memory()
    together_times(options, device)


HERE = __file__.rpartition("/")[0] or "."

if __name__ == "__main__":
    main()
