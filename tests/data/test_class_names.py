"""Names of classes for prompts: given, those of the source, or ImageNet's."""

import pytest
import torch

from fm_lightning.data import FlowData, Split
from fm_lightning.data.class_names import class_names
from fm_lightning.errors import UserError


class Named(FlowData):
    shape, num_classes = (2,), 2

    def load(self):
        split = Split(torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))
        self.train_split = self.held_out_split = self.real_split = split


def test_the_sources_names_serve_where_none_are_given():
    data = Named()
    data.class_names = ["cat", "dog"]
    assert class_names(None, data) == ["cat", "dog"]
    assert class_names(("a", "b"), data) == ["a", "b"]


def test_imagenets_names_come_in_the_usual_order():
    data = Named()
    data.num_classes = 1000
    names = class_names("imagenet", data)
    assert (names[0], names[1], names[207], names[999]) == ("tench", "goldfish", "golden retriever", "toilet tissue")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "The source of Named does not name its classes"),
        (["cat"], "class_names has 1 names for 2"),
        ("imagenet", "class_names has 1,000 names for 2 classes"),
        ("cifar", "class_names='cifar' is not a list"),
    ],
)
def test_names_that_do_not_fit_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        class_names(given, Named())
