"""M-FAC's inverse of the Fisher matrix beside the published recursion, in time and in error.

Both give F⁻¹ x for F = lambda I + (1/m) Σ_i g_i g_iᵀ from m gradients of d numbers. The recursion (Frantar et al.,
NeurIPS 2021) takes one gradient after the other, v_i = g_i / lambda - Σ_j<i (v_jᵀ g_i / den_j) v_j; here one product
G Gᵀ does. Both are in float32, on the same gradients: normal numbers, or those of a network's mini-batches by their
look, a few directions and noise. Errors are relative to the largest number of the dense inverse's, in float64.
"""

from __future__ import annotations

import argparse

import torch
from common import interleave, mean_ratio, median_ms, median_ratio, print_machine, print_table
from torch import Tensor

from espalier.pruning.mfac.inverse import InverseFisher

DAMPS = (1e-1, 1e-3, 1e-5)


class Recursion:
    """The published static algorithm, with each row's sum as two products of a matrix and a vector."""

    def __init__(self, gradients: Tensor, damp: float) -> None:
        m = len(gradients)
        self.damp = damp
        self.v = torch.empty_like(gradients)
        self.denominators = gradients.new_empty(m)
        for i, g in enumerate(gradients):
            c = (self.v[:i] @ g).div_(self.denominators[:i])
            torch.addmv(g, self.v[:i].T, c, beta=1 / damp, alpha=-1, out=self.v[i])
            self.denominators[i] = m + g @ self.v[i]

    def product(self, x: Tensor) -> Tensor:
        return x / self.damp - (self.v @ x / self.denominators) @ self.v

    def diagonal(self) -> Tensor:
        return 1 / self.damp - (1 / self.denominators) @ self.v.square()


METHODS: dict[str, type[Recursion] | type[InverseFisher]] = {"recursion": Recursion, "one product": InverseFisher}


def times(m: int, d: int, damp: float, rounds: int) -> None:
    """Print how long the set-up takes with one product after it, and with the diagonal."""
    generator = torch.Generator().manual_seed(0)
    g, x = torch.randn(m, d, generator=generator), torch.randn(d, generator=generator)
    works = {
        "set-up and F⁻¹ x": {name: lambda make=make: make(g, damp).product(x) for name, make in METHODS.items()},
        "set-up and diag F⁻¹": {name: lambda make=make: make(g, damp).diagonal() for name, make in METHODS.items()},
    }
    built = {name: make(g, damp) for name, make in METHODS.items()}
    works["F⁻¹ x alone"] = {name: lambda inverse=inverse: inverse.product(x) for name, inverse in built.items()}
    rows = []
    for title, contestants in works.items():
        seconds = interleave(contestants, rounds=rounds)
        old, new = seconds["recursion"], seconds["one product"]
        best = f"{min(old) / min(new):.2f}"
        rows.append([title, median_ms(old), median_ms(new), median_ratio(old, new), mean_ratio(old, new), best])
    print_table(
        f"m = {m}, d = {d:,}, float32, {rounds} rounds: median (min-max), how many times faster, with 95 % interval",
        ["what", "recursion, ms", "one product, ms", "ratio of medians", "of means", "of minima"],
        rows,
    )


def errors(m: int, d: int) -> None:
    """Print the largest error of both against the dense inverse, and that of blocks no larger than m."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(m, d, generator=generator)
    alike = torch.randn(m, 4, generator=generator) @ torch.randn(4, d, generator=generator) + 0.01 * normal
    x = torch.randn(d, generator=generator)
    rows = []
    for kind, g in {"normal": normal, "alike": alike, f"normal, first {m // 2} weights": normal[:, : m // 2]}.items():
        for damp in DAMPS:
            n = g.shape[1]
            exact = torch.linalg.inv(damp * torch.eye(n, dtype=torch.float64) + g.T.double() @ g.double() / m)
            row = [kind, f"{damp:.0e}"]
            for make in METHODS.values():
                inverse = make(g, damp)
                for value, truth in (
                    (inverse.product(x[:n]), exact @ x[:n].double()),
                    (inverse.diagonal(), exact.diagonal()),
                ):
                    row.append(f"{float((value.double() - truth).abs().max() / truth.abs().max()):.0e}")
            rows.append(row)
    header = [f"{what}, {name}" for name in METHODS for what in ("F⁻¹ x", "diag F⁻¹")]
    print_table(f"m = {m}, d = {d}, float32: largest error", ["gradients", "lambda", *header], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gradients", type=int, default=256, help="m")
    parser.add_argument("--weights", type=int, default=100_000, help="d")
    parser.add_argument("--damp", type=float, default=1e-5, help="lambda")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print_machine(options.threads)
    times(options.gradients, options.weights, options.damp, options.rounds)
    errors(64, 500)


if __name__ == "__main__":
    main()
