"""A network is asked whether it fits the data, before anything is made of them."""

import pytest

from fm_lightning.errors import UserError
from fm_lightning.nets import ResidualMLP
from fm_lightning.nets.velocity import check_network


@pytest.mark.parametrize(
    ("network", "data", "message"),
    [
        (0, 3, "a network for no classes given with data of 3, expected the same number; type .*num_classes 3, or"),
        (3, 0, "a network for 3 classes given with data of none, expected the same number; type .*num_classes 0$"),
        (3, 4, "a network for 3 classes given with data of 4"),
    ],
)
def test_labels_and_network_agree(network, data, message):
    """Labels that the network ignores would stand in every table as if they meant something."""
    net = ResidualMLP((2,), width=8, num_classes=network)
    with pytest.raises(UserError, match=message):
        check_network(net, (2,), data)
    check_network(net, (2,), network)
