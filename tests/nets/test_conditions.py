"""In sampling all rows are told one time: networks embed it once, and compute the same."""

import pytest
import torch

from fm_lightning.flow import KTS, Schedule, integrate
from fm_lightning.nets import ResidualMLP, UNet


def networks():
    mlp = ResidualMLP([3, 8, 8], width=32, depth=2)
    classes = ResidualMLP([3, 8, 8], width=32, depth=2, num_classes=4)
    unet = UNet((3, 8, 8), num_channels=32, num_res_blocks=1, channel_mult=(1, 2), attention_resolutions=(4,))
    torch.nn.init.normal_(unet.out.weight)
    shift = UNet((3, 8, 8), num_channels=32, num_classes=4, attention_resolutions=(4,), use_scale_shift_norm=True,
                 channel_mult=(1, 2))  # fmt: skip
    torch.nn.init.normal_(shift.out.weight)
    return {"mlp": mlp, "mlp by class": classes, "unet": unet, "unet by class": shift}


@pytest.mark.parametrize("name", ["mlp", "mlp by class", "unet", "unet by class"])
@pytest.mark.parametrize("rows", [1, 5])
def test_one_time_for_all_rows_is_the_same_time_for_each(name, rows):
    net = networks()[name].double().eval()
    x, labels = torch.randn(rows, 3, 8, 8, dtype=torch.float64), torch.arange(rows) % 4
    expanded, written_out = torch.full((1,), 0.37).double().expand(rows), torch.full((rows,), 0.37).double()
    torch.testing.assert_close(net(x, expanded, labels), net(x, written_out, labels), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["mlp", "unet"])
def test_sampling_embeds_the_time_once_a_step(name):
    net = networks()[name].eval()
    seen = []
    net.time.register_forward_hook(lambda module, given, out: seen.append(len(given[0])))
    integrate(net, torch.randn(6, 3, 8, 8), Schedule(KTS(), steps=3))
    assert seen == [1, 1, 1]
    net(torch.randn(6, 3, 8, 8), torch.rand(6))
    assert seen[3:] == [6]
