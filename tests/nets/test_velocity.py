"""A network is asked whether it fits the data, before anything is made of them."""

import pytest
import torch

from fm_lightning.errors import UserError
from fm_lightning.nets import ResidualMLP
from fm_lightning.nets.velocity import check_network, check_returned


@pytest.mark.parametrize(
    ("network", "data", "message"),
    [
        (0, 3, "for no classes and the data have 3. .*num_classes=3, or"),
        (3, 0, "for 3 classes and the data have none. .*num_classes=0.$"),
        (3, 4, "for 3 classes and the data have 4"),
    ],
)
def test_labels_and_network_agree(network, data, message):
    """Labels that the network ignores would stand in every table as if they meant something."""
    net = ResidualMLP((2,), width=8, num_classes=network)
    with pytest.raises(UserError, match=message):
        check_network(net, (2,), data)
    check_network(net, (2,), network)


def test_a_network_that_returns_no_tensor_or_another_shape_is_refused():
    net, x = ResidualMLP((2,), width=8), torch.zeros(3, 2)
    for returned, kind in (((x, x), "tuple"), ({"sample": x}, "dict"), (None, "NoneType")):
        with pytest.raises(UserError, match=f"ResidualMLP returns a {kind}, not a tensor"):
            check_returned(net, returned, x)
    with pytest.raises(UserError, match=r"velocity of shape \[3, 1\] for samples of shape \[3, 2\]"):
        check_returned(net, x[:, :1], x)
    check_returned(net, x, x)
