"""FrechetDistance that keeps some seeds' features and sums of the rest; moments in blocks; several processes."""

import pytest
import torch

from fm_lightning.errors import UserError
from fm_lightning.flow import integrate
from fm_lightning.metrics import FrechetDistance, GaussianReference, RawFeatures, moments
from fm_lightning.metrics.feature_moments import RunningMoments

N, D, KEEP = 1200, 6, 400
GENERATOR = torch.Generator().manual_seed(0)
REAL = torch.randn(2000, D, generator=GENERATOR) * torch.linspace(0.5, 2, D) + 30
Z = torch.randn(N, D, generator=GENERATOR)
FIRST = 0.9 * Z * torch.linspace(0.5, 2, D) + 30.1
SECOND = FIRST + 0.3 * torch.randn(N, D, generator=GENERATOR)


def fed(samples, keep=None, rows=None, batch=170, **kwargs):
    metric = FrechetDistance(RawFeatures(), REAL, keep=keep, **kwargs)
    for index in (torch.arange(N) if rows is None else rows).split(batch):
        metric.update(integrate(lambda x, t, y: torch.zeros_like(x), samples[index], seeds=index))
    return metric


@pytest.mark.parametrize("order", ["ascending", "shuffled"])
def test_the_distance_comes_from_all_samples(order):
    rows = torch.arange(N) if order == "ascending" else torch.randperm(N, generator=torch.Generator().manual_seed(1))
    whole, part = fed(FIRST), fed(FIRST, KEEP, rows)
    assert part.compute()["fd_raw"] == pytest.approx(whole.compute()["fd_raw"], rel=1e-9)
    assert torch.equal(part.features_by_seed(), FIRST[:KEEP])
    assert int(part.let_go) == N - KEEP


def test_nothing_changes_while_all_fit():
    whole, part = fed(FIRST), fed(FIRST, N)
    assert part.compute() == whole.compute()
    assert fed(SECOND, N).change(part) == fed(SECOND).change(whole)


def test_the_interval_is_the_one_of_all_seeds_but_for_sampling():
    whole, part = fed(SECOND).change(fed(FIRST)), fed(SECOND, KEEP).change(fed(FIRST, KEEP))
    assert part.value == pytest.approx(whole.value, rel=1e-9)
    assert part.high - part.low == pytest.approx(whole.high - whole.low, rel=0.15)  # 400 seeds know a spread to 4 %


def test_the_kept_interval_covers_the_spread_of_the_difference():
    """Blocks of fresh seeds, judged by a quarter of them."""
    generator, changes = torch.Generator().manual_seed(5), []
    reference = GaussianReference(*moments(REAL))
    for _ in range(120):
        first = 0.9 * torch.randn(400, D, generator=generator) * torch.linspace(0.5, 2, D) + 30.1
        second = first + 0.3 * torch.randn(400, D, generator=generator)
        metrics = [FrechetDistance(RawFeatures(), reference, keep=100) for _ in range(2)]
        for metric, samples in zip(metrics, (first, second)):
            metric.update(integrate(lambda x, t, y: torch.zeros_like(x), samples, seeds=torch.arange(400)))
        changes.append(metrics[1].change(metrics[0]))
    values = torch.tensor([c.value for c in changes])
    half = sum(c.high - c.low for c in changes) / len(changes) / 2
    assert half / 1.96 == pytest.approx(float(values.std()), rel=0.2)


class Group:
    """Stands in for the process group of one rank: states come around in the order in which torchmetrics asks for them."""

    def __init__(self, metrics):
        names = list(metrics[0]._reductions)
        self.states = [[getattr(m, name) for m in metrics] for name in names]
        self.asked = 0

    def gather(self, mine):
        values = self.states[self.asked % len(self.states)]
        self.asked += 1
        values = [torch.cat(v) if isinstance(v, list) else v for v in values]
        assert any(torch.equal(mine, v) for v in values)
        return values


def test_two_processes_add_their_sums(monkeypatch):
    """The kept seeds, and so every number, do not depend on how many processes share the work."""
    monkeypatch.setattr("torchmetrics.metric.gather_all_tensors", lambda mine, group: group.gather(mine))
    one = [fed(s, KEEP) for s in (FIRST, SECOND)]
    shares = torch.arange(N).view(-1, 100)
    two = [[fed(s, KEEP, shares[r::2].reshape(-1), 100) for r in range(2)] for s in (FIRST, SECOND)]
    for metrics in two:
        for metric in metrics:
            metric.process_group, metric.distributed_available_fn = Group(metrics), lambda: True
    for first, second in zip(*two):
        assert first.compute()["fd_raw"] == pytest.approx(one[0].compute()["fd_raw"], rel=1e-9)
        assert torch.equal(first.features_by_seed(), FIRST[:KEEP])
        assert tuple(second.change(first)) == pytest.approx(tuple(one[1].change(one[0])), rel=1e-7)


def test_a_process_without_samples_gives_its_states_a_shape():
    metric = FrechetDistance(RawFeatures(), REAL, keep=KEEP)
    metric.update(integrate(lambda x, t, y: torch.zeros_like(x), FIRST[:1], seeds=torch.arange(1))[:0])
    assert metric.features[0].shape == (0, D)


def test_reset_forgets_the_sums():
    metric = fed(SECOND, KEEP)
    metric.reset()
    for index in torch.arange(N).split(500):
        metric.update(integrate(lambda x, t, y: torch.zeros_like(x), FIRST[index], seeds=index))
    assert metric.compute() == pytest.approx(fed(FIRST).compute(), rel=1e-9)


def test_moments_in_blocks_and_as_sums_equal_those_at_once(monkeypatch):
    want = moments(FIRST)
    monkeypatch.setattr("fm_lightning.metrics.feature_moments.BLOCK", 100)
    running = RunningMoments(REAL.mean(0))
    for part in FIRST.split(77):
        running.add(part)
    for mean, cov in (moments(FIRST), running.moments()):
        torch.testing.assert_close(mean, want[0], rtol=1e-13, atol=0)
        torch.testing.assert_close(cov, want[1], rtol=1e-9, atol=1e-12)


def test_bad_input():
    with pytest.raises(UserError, match="keep=1"):
        FrechetDistance(RawFeatures(), REAL, keep=1)
    metric = FrechetDistance(RawFeatures(), REAL)
    with pytest.raises(UserError, match="expected the reference's 6"):
        metric.update(integrate(lambda x, t, y: torch.zeros_like(x), torch.zeros(3, D + 1)))
    with pytest.raises(UserError, match="at least 2"):
        RunningMoments(REAL.mean(0)).moments()
