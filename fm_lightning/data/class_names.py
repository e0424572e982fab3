"""Names of the classes of a data set, for prompts."""

from __future__ import annotations

from collections.abc import Sequence

from fm_lightning.data.samples import Samples
from fm_lightning.errors import UserError

IMAGENET = "imagenet"


def class_names(given: Sequence[str] | str | None, data: Samples) -> list[str]:
    """Returns the names of the classes in the order of the labels.

    Args:
        given: the names; "imagenet" for torchvision's names of ImageNet's 1,000 classes, in the usual order (sorted by
            synset); None for the names in the data's source.
        data: the data, prepared.

    Raises:
        UserError: no names given and none in the source, or not one name per class.
    """
    if given == IMAGENET:
        from torchvision.models import ResNet50_Weights  # half a second to import

        given = ResNet50_Weights.IMAGENET1K_V1.meta["categories"]
    if isinstance(given, str):
        raise UserError(f"class_names={given!r} is not a list of names.", f"Set '[cat, dog]', or {IMAGENET}")
    names = list(data.class_names if given is None else given)
    if len(names) != data.num_classes:
        what = f"class_names has {len(names):,} names for {data.num_classes:,} classes."
        if given is None and not names:
            what = f"The source of {type(data).__name__} does not name its classes."
        raise UserError(what, "Name them in the order of the labels, for example class_names: [cat, dog]")
    return names
