"""What a data set's classes are called, for prompts."""

from __future__ import annotations

from collections.abc import Sequence

from fm_lightning.data.samples import Samples
from fm_lightning.errors import OldError

IMAGENET = "imagenet"


def class_names(given: Sequence[str] | str | None, data: Samples) -> list[str]:
    """The names of the classes in the order of the labels.

    Args:
        given: the names; "imagenet" for torchvision's names of ImageNet's 1 000 classes, in the usual order (sorted by
            synset); None for those that the data's source gives.
        data: set up.

    Raises:
        UserError: no names where the source gives none, or another number than of classes.
    """
    if given == IMAGENET:
        from torchvision.models import ResNet50_Weights  # half a second to import

        given = ResNet50_Weights.IMAGENET1K_V1.meta["categories"]
    if isinstance(given, str):
        raise OldError(f"class_names={given!r} given", f"a list of names, or {IMAGENET}", "type e.g. '[cat, dog]'")
    names = list(data.class_names if given is None else given)
    if len(names) != data.num_classes:
        what = f"{len(names)} class_names given for {data.num_classes} classes"
        if given is None and not names:
            what = f"no class_names given, and the source of {type(data).__name__} names none"
        raise OldError(what, "one for each", "name them in the order of the labels, e.g. class_names: [cat, dog]")
    return names
