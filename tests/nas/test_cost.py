from __future__ import annotations

import torch
from torch import nn

from espalier.nas.cost.count import Cost, count


def test_hand_counted() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),  # 2*4*9 a position, and 4 for the bias, at 64 positions
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4, bias=False),  # depthwise: 4*9 at 16 positions
        nn.Flatten(),
        nn.Linear(64, 5),  # 64*5 and 5 for the bias
    )
    expected = 64 * (2 * 4 * 9 + 4) + 16 * 4 * 9 + 64 * 5 + 5
    params = (2 * 4 * 9 + 4) + 8 + 4 * 9 + (64 * 5 + 5)
    assert count(model, (2, 8, 8)) == Cost(params=params, macs=expected)


def test_counting_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count(model, (1, 8, 8))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model[0].weight.device.type == "cpu"
