"""MemorizationMonitor on mirrored latents, and on data that are not available."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from latent_images import images, tiny
from test_fid_monitor import prepared, still

from fm_lightning.callbacks import MemorizationMonitor
from fm_lightning.data import Latents, Unknown
from fm_lightning.data.latents import encode_images
from fm_lightning.errors import UserError
from fm_lightning.metrics import MemorizationRate
from fm_lightning.metrics.neighbours.distinct import joined


@pytest.fixture
def latents(tmp_path):
    encode_images(images(), tiny(), tmp_path / "latents", shard_size=8, dtype="float32")
    data = Latents(str(tmp_path / "latents"), flip=True)
    data.setup()
    return data


def ready(monitor, data):
    trainer, module, _ = prepared(monitor, data)
    return monitor, trainer, module


def test_an_image_and_its_mirror_image_are_one(latents, capsys):
    monitor = ready(MemorizationMonitor(k=3), latents)[0]
    assert "equal" not in capsys.readouterr().out, "views are no duplicates"
    rows = latents.reference()
    n = len(latents.train_split)
    assert len(rows) == 2 * n
    generator = torch.Generator().manual_seed(0)
    x = rows[torch.randint(0, 2 * n, (40,), generator=generator)]
    x = x + 2 * x.std() * torch.rand(40, 1, 1, 1, generator=generator) * torch.randn(x.shape, generator=generator)
    (metric,) = monitor.measures
    found = metric.measure(still(x))
    each = torch.cdist(x.flatten(1).double(), rows.flatten(1).double())
    near, index = torch.minimum(each[:, :n], each[:, n:]).sort(1)
    for k in range(3):
        torch.testing.assert_close(found[f"d{k + 1}"].double(), near[:, k], rtol=1e-5, atol=1e-6)
    assert torch.equal(found["nearest"], index[:, 0])
    numbers = metric.summarize(found)
    assert numbers["f_mem"] == pytest.approx(float((near[:, 0] / near[:, 1] < 1 / 3).double().mean()))
    assert 0 < numbers["f_mem"] < 1
    assert not {"near_duplicates", "exact_duplicates"} & set(numbers)


def test_duplicates_are_counted_in_images():
    """Rows 0 ... 11 and their mirror images': image 3 equals image 1, image 4 is the mirror image of image 2."""
    generator = torch.Generator().manual_seed(1)
    rows, mirrored = torch.randn(2, 12, 5, generator=generator)
    rows[3], mirrored[3] = rows[1], mirrored[1]
    rows[4], mirrored[4] = mirrored[2], rows[2]
    both, views = torch.cat([rows, mirrored]), torch.arange(24) % 12
    leader = [0, 1, 2, 1, 2, *range(5, 12)] * 2
    metric = MemorizationRate(both, views=views)
    assert (metric.images, metric.exact_duplicates, metric.near_duplicates) == (12, 2, None)
    assert metric.groups.leader.tolist() == leader
    close = MemorizationRate(
        both + 1e-4 * torch.randn(both.shape, generator=generator), views=views, leave_out_duplicates=0.1
    )
    assert (close.exact_duplicates, close.near_duplicates) == (0, 2)
    assert close.groups.leader.tolist() == leader
    with pytest.raises(UserError, match="The 1 training images are all equal"):
        MemorizationRate(torch.cat([rows[:1], mirrored[:1]]), views=torch.zeros(2, dtype=torch.int64))


def leaders_of(n):
    return st.lists(st.lists(st.integers(0, n - 1), min_size=n, max_size=n), min_size=1, max_size=3)


@given(st.integers(1, 12).flatmap(leaders_of))
def test_joined_is_the_smallest_in_each_component(leaders):
    n = len(leaders[0])
    expected = list(range(n))
    for _ in range(n):  # labels sink along every pair until nothing moves
        for leader in leaders:
            for i, j in enumerate(leader):
                expected[i] = expected[j] = min(expected[i], expected[j])
    assert joined(*map(torch.tensor, leaders)).tolist() == expected


def test_nothing_to_compare_with_is_said_in_words(capsys):
    data = Unknown([4, 4, 6])
    data.setup("test")
    monitor, trainer, module = ready(MemorizationMonitor(), data)
    assert "left out: there are no training data" in capsys.readouterr().out
    assert monitor.measures == []
    monitor.begin(trainer, module)
    monitor.update(trainer, module, {"base": still(torch.zeros(2, 4, 4, 6))})
    monitor.finish(trainer, module)
    assert monitor.values == {}


def test_divided_leaves_no_duplicates_out():
    with pytest.raises(UserError, match="divided among processes"):
        MemorizationMonitor(divided=True, leave_out_duplicates=0.3)
