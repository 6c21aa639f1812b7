"""Common random numbers: what a layer draws does not depend on which other layers are run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from espalier.nas.gates import Gates, Mixture
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.darts import Darts
from espalier.nas.spaces.layers import Noise
from espalier.nas.task import Batch, Classification
from espalier.supernets.darts import DARTS
from espalier.supernets.evaluation import SupernetEvaluator
from espalier.supernets.noise import paired_noise
from espalier.supernets.selection.perturbation import without_option
from espalier.supernets.strategy import Step


@pytest.fixture
def space() -> Darts:
    """S4: noise or a convolution on each of 14 edges, in three cells."""
    torch.manual_seed(0)
    return Darts((1, 8, 8), 10, variant="S4", channels=2, cells=3)


@contextmanager
def drawn_by(network: nn.Module) -> Iterator[list[dict[str, Tensor]]]:
    """What each layer of noise draws, pass by pass."""
    passes: list[dict[str, Tensor]] = []

    def keep(name: str, noise: Tensor) -> None:
        passes[-1][name] = noise

    hooks = [network.register_forward_pre_hook(lambda *_: passes.append({}))]
    for name, layer in network.named_modules():
        if isinstance(layer, Noise):
            hooks.append(layer.register_forward_hook(lambda _, x, y, name=name: keep(name, y)))
    yield passes
    for hook in hooks:
        hook.remove()


def batch(seed: int = 0) -> Batch:
    return torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(seed)), torch.arange(8)


def without_noise_on(space: SearchSpace, name: str, gates: Gates) -> Gates:
    gate = gates[name]
    assert isinstance(gate, Mixture)
    return {**gates, name: without_option(gate, space.choices()[name].options.index("noise"))}


def test_an_option_removed_leaves_the_noise_of_all_others(space: Darts) -> None:
    gates = DARTS(space).mean_gates()
    candidates = [gates, without_noise_on(space, "normal_edge_2_0", gates)]
    before = torch.get_rng_state()
    with drawn_by(space) as passes:
        SupernetEvaluator(space, [batch(0), batch(1)], seed=0)(candidates)
    assert torch.equal(torch.get_rng_state(), before)
    # Batch by batch, one pass for each candidate; what is removed is the first layer to draw.
    whole, fewer, whole_again, fewer_again = passes
    for all_layers, rest in ((whole, fewer), (whole_again, fewer_again)):
        assert len(all_layers) == 3 * 14
        assert len(rest) == 3 * 14 - 1  # one normal cell
        assert all(torch.equal(noise, all_layers[name]) for name, noise in rest.items())
    assert not any(torch.equal(whole[name], whole_again[name]) for name in whole)


def test_no_two_layers_draw_the_same(space: Darts) -> None:
    with drawn_by(space) as passes, paired_noise(space, 0):
        space(batch()[0], DARTS(space).mean_gates())
    starts = [tuple(noise.flatten()[:8].tolist()) for noise in passes[0].values()]
    assert len(set(starts)) == 3 * 14


def test_dropout_is_paired_and_a_layer_that_is_run_again_draws_anew() -> None:
    drop = nn.Dropout(0.5)
    twice = nn.ModuleList([Noise(stride=1), drop])

    def masks(seed: int, *, noise: bool) -> list[Tensor]:
        x = torch.ones(4, 3, 8, 8)
        with paired_noise(twice, seed):
            return [layer(x) for layer in ((twice[0], drop, drop) if noise else (drop, drop))][-2:]

    first, second = masks(0, noise=True)
    assert not torch.equal(first, second)
    for mask, alone in zip((first, second), masks(0, noise=False), strict=True):
        assert torch.equal(mask, alone)
    assert not torch.equal(masks(1, noise=True)[0], first)


def test_an_error_leaves_no_hook_and_the_generator_as_it_was(space: Darts) -> None:
    before = torch.get_rng_state()
    with pytest.raises(KeyError), paired_noise(space, 0):
        space(batch()[0], {})
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(module._forward_pre_hooks for module in space.modules())


def test_second_order_sees_one_training_loss(space: Darts) -> None:
    """Equations 7 and 8 of DARTS: L_train(w), L_train(w+) and L_train(w-) are one function, of one draw of noise."""
    strategy = DARTS(space, order=2)
    step = Step(
        supernet=space.train(),
        task=Classification(10),
        optimizer=torch.optim.SGD(space.parameters(), lr=0.1),
        train=batch(0),
        validation=lambda: batch(1),
        generator=torch.Generator().manual_seed(0),
        epoch=0,
        epochs=1,
        index=0,
        steps=1,
    )
    with drawn_by(space) as passes:
        strategy.gradient(step)
        strategy.gradient(step)
    train, validation, plus, minus, next_step, *_ = passes
    for name, noise in train.items():
        assert torch.equal(plus[name], noise)
        assert torch.equal(minus[name], noise)
        assert not torch.equal(validation[name], noise)
        assert not torch.equal(next_step[name], noise)
