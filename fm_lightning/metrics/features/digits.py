"""A small classifier of 8x8 digits: the features behind ``fd_digits``, and a judge of the class.

A classifier learns to be blind to what does not change the class, and so its last layer is blind to noise:
the Fréchet distance of such features forgives exactly the residual noise that a sampling schedule may leave
in a sample. Training on noisy digits makes it worse. These features therefore see an image at two depths, 64
numbers in all:

    deep  [48]  a linear layer on the last feature map (positions kept): which digit, which strokes, where
    fine  [16]  a linear layer on the first layer's rectified 3x3 responses r, each squashed to r / (r + 1/4)
                and then averaged over the image: its texture

Convolutions have no bias and read ``x + 1``, so the empty background (-1) sits exactly on the rectifier's
kink: noise of standard deviation s moves a fine feature by O(s), where a smooth unit would move by O(s^2).
The squashing keeps the ink of a stroke from drowning faint texture. The network has never seen noise. The
basis of either part is free, since the head can undo it; it is chosen so that on the training digits each
deep feature has variance 1 and the fine features are nearly uncorrelated with variance just below 1: no
single dimension outweighs the others (see `fm_lightning.training.digits_classifier`).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fm_lightning.errors import UserError

WEIGHTS = Path(__file__).with_name("digits_classifier.pt")
TRAINING = "python -m fm_lightning.training.digits_classifier"


class DigitsClassifier(nn.Module):
    """Class scores and features of digits. No dropout, no batch statistics: a row depends on its image alone.

    Example:
        >>> net = DigitsClassifier.load()
        >>> images = torch.full((2, 1, 8, 8), -1.0)
        >>> net(images).shape, net.features(images).shape
        (torch.Size([2, 10]), torch.Size([2, 64]))
    """

    classes = 10
    num_features = 64

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 24, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(24, 24, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(24, 48, 3, padding=1, stride=2, bias=False)
        self.deep = nn.Linear(48 * 4 * 4, 48)
        self.fine = nn.Linear(24, 16)
        self.head = nn.Linear(self.num_features, self.classes)

    @classmethod
    def load(cls, path: str | Path = WEIGHTS) -> DigitsClassifier:
        """The trained classifier, frozen, in evaluation mode; by default with the shipped weights.

        Raises:
            UserError: the file is missing or holds something else.
        """
        with torch.random.fork_rng(devices=[]):  # what is drawn after must not depend on whether this is measured
            net = cls()
        try:
            net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # torch raises half a dozen types for a truncated or foreign file
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"Cannot read weights of the digits classifier from {path} ({reason}).",
                f"Train it with: {TRAINING} --out FILE",
            ) from error
        return net.eval().requires_grad_(False)

    def features(self, images: Tensor) -> Tensor:
        """``[B, 1, 8, 8]`` float in [-1, 1] (not clipped) -> ``[B, 64]``: 48 deep, then 16 fine features.

        Raises:
            UserError: the images are of another shape or not floating point.
        """
        if images.shape[1:] != (1, 8, 8) or not images.is_floating_point():
            raise UserError(
                f"The digits classifier reads floats [B, 1, 8, 8] in [-1, 1], not {list(images.shape)} of {images.dtype}.",
                "Convert bytes with images.float() / 127.5 - 1.",
            )
        edges = F.relu(self.conv1(images + 1))  # [B, 24, 8, 8]
        strokes = F.relu(self.conv3(F.relu(self.conv2(edges))))  # [B, 48, 4, 4]
        texture = (edges / (edges + 0.25)).mean((2, 3))  # [B, 24]
        return torch.cat([self.deep(strokes.flatten(1)), self.fine(texture)], dim=1)

    def classify(self, features: Tensor) -> Tensor:
        """Features ``[B, 64]`` -> logits ``[B, 10]``."""
        deep, fine = features.split([self.deep.out_features, self.fine.out_features], dim=1)
        return self.head(torch.cat([F.relu(deep), fine], dim=1))

    def forward(self, images: Tensor) -> Tensor:
        """``[B, 1, 8, 8]`` float in [-1, 1] -> logits ``[B, 10]``."""
        return self.classify(self.features(images))
