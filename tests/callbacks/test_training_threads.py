"""Threads while training, and before and after it."""

import pytest
import torch
from lightning import Trainer

from fm_lightning import FlowMatching
from fm_lightning.callbacks import TrainingThreads
from fm_lightning.data import Toy2D
from fm_lightning.errors import UserError
from fm_lightning.nets import ResidualMLP


class Threads(ResidualMLP):
    """Notes how many threads it is computed with."""

    def forward(self, x, t, y=None):
        self.__dict__.setdefault("seen", {}).setdefault(self.training, set()).add(torch.get_num_threads())
        return super().forward(x, t, y)


@pytest.fixture
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_two_threads")
def test_one_thread_in_training_all_in_the_comparison(tmp_path):
    net = Threads([2], width=8, depth=1)
    data = Toy2D(n=8, batch_size=4, eval_batch_size=4, val_seeds=4, test_seeds=4)
    trainer = Trainer(
        max_steps=2, callbacks=[TrainingThreads(1)], logger=False, enable_checkpointing=False, limit_val_batches=0,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path, accelerator="cpu",
    )  # fmt: skip
    module = FlowMatching(net)
    trainer.fit(module, data)
    assert net.seen == {True: {1}}
    assert torch.get_num_threads() == 2
    trainer.test(module, data, verbose=False)
    assert net.seen[False] == {2}


def test_no_threads():
    with pytest.raises(UserError, match="`threads=0` must be positive"):
        TrainingThreads(0)
