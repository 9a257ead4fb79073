from __future__ import annotations

import torch
from torch.nn import functional as F

from fastdino.evaluate.linear_grid import train_grid


def test_each_classifier_is_what_torchs_sgd_gives_alone() -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(24, 5, generator=generator)
    labels = torch.randint(3, (24,), generator=generator)
    grid = train_grid(features, labels, 3, (0.1, 1.0), (0.0, 0.01), epochs=4, batch_size=10, seed=2)
    for index, (rate, decay) in enumerate(grid.settings):
        draws = torch.Generator().manual_seed(2)
        weight = torch.empty(5, 3).normal_(std=0.01, generator=draws).requires_grad_()
        bias = torch.zeros(3, requires_grad=True)
        optimizer = torch.optim.SGD([weight, bias], rate * 10 / 256, momentum=0.9, weight_decay=decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
        for _ in range(4):
            for rows in torch.randperm(24, generator=draws).split(10):
                optimizer.zero_grad()
                F.cross_entropy(features[rows] @ weight + bias, labels[rows]).backward()
                optimizer.step()
            schedule.step()
        # 12 steps over sums of 10 rows in another order: some tens of float32 roundings (6e-8) of values near 1.
        torch.testing.assert_close(grid.weight[index], weight.detach(), rtol=0, atol=5e-6)
        torch.testing.assert_close(grid.bias[index], bias.detach(), rtol=0, atol=5e-6)
        expected = (features @ weight + bias).detach()
        torch.testing.assert_close(grid.logits(features)[:, index], expected, rtol=0, atol=5e-5)
