"""The class-balancing regulariser: values, exact optimum, frequency updates, underflow and the closed loop."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor

from uapgen.errors import UsageError
from uapgen.gan import ClassFrequency, RunningMean, balance_loss, bound, coverage, mean_softmax, negentropy, optimum
from uapgen.runtime import rng

CIFAR_100 = torch.tensor([5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50.0])
CIFAR_10 = torch.tensor([5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500.0])
LSUN_100 = torch.tensor([50000, 15811, 5000, 1581, 500.0])
# Solved by hand from p_k = exp(lambda N_k - 1), to four places.
OPTIMA = [
    (CIFAR_100, [0.0, 0.0, 0.0002, 0.0039, 0.0242, 0.0718, 0.1382, 0.2046, 0.2592, 0.2979]),
    (CIFAR_10, [0.0038, 0.0106, 0.0236, 0.0439, 0.0709, 0.1028, 0.1371, 0.1713, 0.2037, 0.2326]),
    (LSUN_100, [0.0042, 0.0894, 0.2352, 0.3194, 0.3518]),
]


def random_frequencies(k: int, seed: int) -> Tensor:
    return 1 + 99 * torch.rand(k, generator=rng(seed, "frequency"), dtype=torch.float64)


@pytest.mark.parametrize("k", [3, 10, 1000])
def test_uniform_predictions_give_minus_log_k_for_any_weights(k: int) -> None:
    frequency = ClassFrequency(k)
    frequency.frequency = random_frequencies(k, 0)
    weights = frequency.weights()
    assert float(weights.sum()) == pytest.approx(k, rel=1e-5)
    assert float(balance_loss(torch.zeros(7, k), weights)) == pytest.approx(-math.log(k), rel=1e-5)


def test_the_loss_is_taken_on_the_batch_mean_not_on_each_image() -> None:
    for labels, expected in (([0, 1, 2, 3], -math.log(4)), ([1, 1, 1, 1], 0)):
        assert float(balance_loss(50 * torch.eye(4)[labels], torch.ones(4))) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_underflow_gives_finite_loss_and_gradients(dtype: torch.dtype) -> None:
    logits = torch.full((4, 5), -6e4, dtype=dtype)
    logits[:, 0] = 6e4
    logits.requires_grad_()
    loss = balance_loss(logits, torch.ones(5))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    p = torch.tensor([1.0, 0.0], requires_grad=True)
    negentropy(p, torch.ones(2)).backward()
    assert p.grad.isfinite().all()
    assert p.grad[1] < p.grad[0]  # descending raises the class that is missing


def test_float32_inside_autocast() -> None:
    logits = torch.tensor([[4.0, 1.0, -3.0]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(mean_softmax(logits), logits.softmax(1).mean(0))


@pytest.mark.parametrize(("frequency", "expected"), OPTIMA, ids=["cifar100", "cifar10", "lsun"])
def test_optimum_of_known_long_tails(frequency: Tensor, expected: list[float]) -> None:
    assert optimum(frequency).tolist() == pytest.approx(expected, abs=6e-5)
    assert torch.allclose(optimum(frequency * 1e-3), optimum(frequency))  # only ratios count


def test_bound_of_a_known_long_tail() -> None:
    expected = [0.0019, 0.0158, 0.0558, 0.1187, 0.1869, 0.2450, 0.2883, 0.3179, 0.3372, 0.3491]
    assert bound(CIFAR_100).tolist() == pytest.approx(expected, abs=6e-5)


@pytest.mark.parametrize("k", [2, 3, 5, 10, 100])
def test_optimum_lies_below_the_bound_and_falls_with_frequency(k: int) -> None:
    for seed in range(5):
        frequency = random_frequencies(k, seed)
        p = optimum(frequency)
        assert float(p.sum()) == pytest.approx(1, abs=1e-9)
        assert (p <= bound(frequency) + 1e-12).all()
        rising = p[frequency.argsort()].diff()
        assert (rising > 0).all() if k == 2 else (rising < 0).all()
        assert k == 2 or float(p.max()) < 1 / math.e
    equal = torch.full((k,), 7.0)
    assert torch.allclose(optimum(equal), torch.full((k,), 1 / k, dtype=torch.float64))
    assert torch.allclose(bound(equal), torch.full((k,), 1 / k, dtype=torch.float64))


def test_optimum_is_where_gradient_descent_on_the_loss_ends() -> None:
    frequency = random_frequencies(6, 9)
    weights = 6 / frequency / (1 / frequency).sum()
    logits = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-10, tolerance_change=1e-14)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = negentropy(logits.softmax(0), weights)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.allclose(logits.detach().softmax(0), optimum(frequency), atol=1e-5)


def test_two_classes_are_reversed_and_warned_about() -> None:
    assert optimum(torch.tensor([3.0, 1.0])).tolist() == pytest.approx([0.57345, 0.42655], abs=1e-5)
    with pytest.warns(UserWarning, match="favours the majority"):
        ClassFrequency(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ClassFrequency(3)
    with pytest.raises(UsageError, match="at least 3 classes, not 1"):
        ClassFrequency(1)


def test_published_update_rule() -> None:
    frequency = ClassFrequency(3, update_every=8)
    assert frequency.weights().tolist() == [1, 1, 1]
    frequency.count(torch.tensor([0, 0, 0, 1]))
    assert not frequency.update()
    frequency.count(torch.tensor([0, 0, 0, 1]))
    assert frequency.update()
    assert frequency.frequency.tolist() == [0.5 * 50 + 0.5 * 518, 0.5 * 50 + 0.5 * 514, 0.5 * 50 + 0.5 * 512]
    for _ in range(12):
        frequency.count(torch.zeros(8, dtype=torch.int64))
        assert frequency.update()
    assert frequency.frequency[1:].tolist() == [1, 1]  # the floor
    w = frequency.weights()
    assert float(w[1] / w[0]) == pytest.approx(float(frequency.frequency[0]))


def test_plain_sum_update_keeps_the_whole_window() -> None:
    frequency = ClassFrequency(3, alpha=0.9, update_every=1, initial=10, first_window=0, convex=False)
    frequency.count(torch.tensor([2]))
    frequency.update()
    assert frequency.frequency.tolist() == pytest.approx([9, 9, 10])


@pytest.mark.parametrize(("alpha", "expected"), [(0.5, {0: 0.691, 1: 0.205, 5: 0.0}), (0.9, {1: 0.351, 5: 0.110})])
def test_closed_loop_goes_to_uniform(alpha: float, expected: dict[int, float]) -> None:
    """A generator that always sits at the optimum, starting from a long tail: KL to uniform, per update."""
    images = int(CIFAR_100.sum())
    frequency = ClassFrequency(10, alpha=alpha, update_every=images, first_window=0)
    frequency.frequency = CIFAR_100.double()
    for t in range(21):
        p = optimum(frequency.frequency)
        kl = float((p * (p * 10).log()).sum())
        if t in expected:
            assert kl == pytest.approx(expected[t], abs=1e-3)
        frequency.counts += images * p
        frequency.seen += images
        assert frequency.update()
    assert kl < 3e-4


def test_running_mean_takes_the_value_from_the_past_and_the_gradient_from_the_batch() -> None:
    running = RunningMean(4, beta=0.75)
    batch = torch.tensor([1.0, 0, 0, 0], requires_grad=True)
    p = running(batch)
    assert p.tolist() == pytest.approx([0.4375, 0.1875, 0.1875, 0.1875])
    weights = torch.tensor([0.5, 1.5, 1.0, 1.0])
    negentropy(p, weights).backward()
    assert torch.allclose(batch.grad, weights * (p.detach().log() + 1), atol=1e-6)
    assert running(p.detach()).tolist() == pytest.approx(p.tolist())
    assert not running.mean.requires_grad
    assert torch.equal(RunningMean(4, beta=0)(batch), batch)
    with pytest.raises(UsageError, match="beta 1"):
        RunningMean(4, 1)


def test_running_mean_knows_the_classes_of_earlier_batches() -> None:
    running = RunningMean(100, beta=0.99)
    for step in range(2000):  # 2 images a batch, the classes in turn: balanced, though no batch shows it
        p = running(mean_softmax(60 * torch.eye(100)[[step % 100, (step + 50) % 100]]))
    assert float(negentropy(p, torch.ones(100))) == pytest.approx(-math.log(100), abs=0.1)


def test_states_are_tensors_and_come_back() -> None:
    frequency, running = ClassFrequency(5, update_every=9), RunningMean(5, 0.9)
    frequency.count(torch.tensor([4, 4, 0]))
    running(torch.eye(5)[2])
    for held, fresh in ((frequency, ClassFrequency(5, update_every=9)), (running, RunningMean(5, 0.9))):
        fresh.load_state_dict(held.state_dict())
        assert all(torch.equal(held.state_dict()[key], value) for key, value in fresh.state_dict().items())
    with pytest.raises(RuntimeError):
        ClassFrequency(7).load_state_dict(frequency.state_dict())


def test_coverage() -> None:
    names = ["classes", "kl_mean", "kl_argmax", "confidence"]
    for labels, expected in ((range(10), [10, 0, 0, 1]), ([3] * 8, [1, math.log(10), math.log(10), 1])):
        found = coverage(60 * torch.eye(10)[list(labels)])
        assert [found[name] for name in names] == pytest.approx(expected, abs=1e-6)
    timid = coverage(torch.tensor([[0.1, 0, 0], [0.1, 0, 0]]))
    assert timid["kl_mean"] < 0.01 < timid["kl_argmax"]
    assert timid["confidence"] == pytest.approx(math.exp(0.1) / (math.exp(0.1) + 2))
