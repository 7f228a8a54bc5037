"""Two gloo processes: sums and means of tensors, of moments, and of an optimiser's gradients."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from uapgen.distributed.rows import (
    average_gradients,
    mean_over_processes,
    moments_over_processes,
    sum_gradients,
    summed,
)


def images(rank: int) -> Tensor:
    return torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(rank))


def with_gradient(value: float) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    """A parameter whose gradient is `value`, beside one that has none."""
    weight = nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.full((2, 2), value)
    return weight, torch.optim.SGD([weight, nn.Parameter(torch.zeros(1))])


def _process(rank: int, folder: str) -> None:
    os.environ["RANK"] = str(rank)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    held = {f"summed{i}": part for i, part in enumerate(summed([torch.ones(2) * rank, torch.ones(1, 3)]))}
    for name, reduce in (("sum", sum_gradients), ("average", average_gradients)):
        weight, optimizer = with_gradient(1.0 + 2 * rank)
        reduce(optimizer)
        held[name] = weight.grad
    x = torch.tensor([1.0 + rank], requires_grad=True)
    mean = mean_over_processes(x)
    (mean * (1 + rank)).sum().backward()
    held |= {"mean": mean.detach(), "gradient": x.grad}
    held["variance"], held["moment"] = moments_over_processes(images(rank))
    torch.save(held, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_have_the_sums_of_both(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_process, (str(tmp_path),), nprocs=2)
    both = torch.cat([images(0), images(1)])
    for rank in range(2):
        held = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.equal(held["summed0"], torch.ones(2))
        assert torch.equal(held["summed1"], torch.full((1, 3), 2.0))
        assert torch.equal(held["sum"], torch.full((2, 2), 4.0))
        assert torch.equal(held["average"], torch.full((2, 2), 2.0))
        assert held["mean"].item() == 1.5
        assert held["gradient"].item() == 1.5  # the losses of both read it: (1 + 2) / 2
        variance, mean = torch.var_mean(both, (0, 2, 3), correction=0)
        assert torch.allclose(held["variance"], variance, atol=1e-6)
        assert torch.allclose(held["moment"], mean, atol=1e-6)


def test_one_process_keeps_what_it_has() -> None:
    part = torch.ones(2)
    assert summed([part])[0] is part
    assert summed([]) == []
    for reduce in (sum_gradients, average_gradients):
        weight, optimizer = with_gradient(3.0)
        reduce(optimizer)
        assert torch.equal(weight.grad, torch.full((2, 2), 3.0))
    assert torch.equal(mean_over_processes(part), part)
