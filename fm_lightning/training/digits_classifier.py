"""Trains the digits classifier whose weights ship with the package: clean digits, one thread, a few seconds.

    python -m fm_lightning.training.digits_classifier [--out FILE]

Deterministic for one build of torch on one kind of CPU; elsewhere rounding may lead to other weights of similar accuracy.
The shipped file is therefore part of the definition of ``fd_digits``: values from other weights are not comparable.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor

from fm_lightning.data.digits import load_digits, split
from fm_lightning.metrics.features.digits import TRAINING, WEIGHTS, DigitsClassifier

SEED = 2  # of 0..3 the one most sensitive to noise; held-out accuracies are 98.9% to 99.4%
EPOCHS = 20
BATCH = 64
LEARNING_RATE = 2e-3
SHRINKAGE = 0.02  # share of the mean variance; bounds how far directions of nearly no variance are stretched


def train(images: Tensor, labels: Tensor, seed: int = SEED) -> DigitsClassifier:
    """Fits a classifier by cross-entropy, then fixes the basis of its features.

    Args:
        images: ``[N, 1, 8, 8]`` float in [-1, 1]; used without noise or other augmentation.
        labels: ``[N]`` int64 in 0..9.
        seed: seed of initial weights and batches, for torch's global generator.

    Returns:
        The classifier in evaluation mode.
    """
    torch.manual_seed(seed)
    net = DigitsClassifier().train()
    batches = len(images) // BATCH
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=EPOCHS * batches)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images))[: batches * BATCH].view(batches, BATCH):
            # Batch standardisation makes more features matter; `_fold_standardisation` moves it into the weights.
            features = F.batch_norm(net.features(images[batch]), None, None, training=True)
            loss = F.cross_entropy(net.classify(features), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()
    _fold_standardisation(net, images)
    _decorrelate_fine(net, images)
    return net


@torch.no_grad()
def _fold_standardisation(net: DigitsClassifier, images: Tensor) -> None:
    """Gives each feature mean 0 and variance 1 over the training images, as in training."""
    std, mean = torch.std_mean(net.features(images), dim=0, correction=0)
    begin = 0
    for layer in (net.deep, net.fine):
        end = begin + layer.out_features
        layer.weight /= std[begin:end, None]
        layer.bias.sub_(mean[begin:end]).div_(std[begin:end])
        begin = end


@torch.no_grad()
def _decorrelate_fine(net: DigitsClassifier, images: Tensor) -> None:
    """``fine -> W fine`` with ``W = (C + lambda I)^(-1/2)``, undone in the head: the logits stay the same.

    The averaged responses all grow with the amount of ink. Standardised one by one, they are nearly one feature counted
    sixteen times. Its large variance would hide differences of texture at equal ink, which are where noise shows.
    """
    net.double()
    fine = net.features(images.double())[:, net.deep.out_features :]
    variance, basis = torch.linalg.eigh(torch.cov(fine.T))
    variance = variance + SHRINKAGE * variance.mean()
    whiten = (basis * variance.rsqrt()) @ basis.T
    unwhiten = (basis * variance.sqrt()) @ basis.T
    net.fine.weight.copy_(whiten @ net.fine.weight)
    net.fine.bias.copy_(whiten @ net.fine.bias)
    columns = net.head.weight[:, net.deep.out_features :]
    columns.copy_(columns @ unwhiten)
    net.float()


@torch.no_grad()
def accuracy(net: DigitsClassifier, images: Tensor, labels: Tensor) -> float:
    """Share of ``images`` whose most likely class is the label, 0..1."""
    return (net(images).argmax(1) == labels).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(prog=TRAINING, description="Train the digits classifier.")
    parser.add_argument("--out", default=str(WEIGHTS), help="file for the weights (default: the package's own)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # fastest for so small a network, and sums keep their order
    pixels, labels = load_digits()
    images = pixels.float() / 127.5 - 1
    parts = split()
    net = train(images[parts.classifier_train], labels[parts.classifier_train])
    seen, unseen = parts.classifier_train, parts.classifier_held_out
    print(f"accuracy on {len(seen)} training digits {accuracy(net, images[seen], labels[seen]):.2%}")
    print(f"accuracy on {len(unseen)} held-out digits {accuracy(net, images[unseen], labels[unseen]):.2%}")
    torch.save(net.state_dict(), arguments.out)
    print(f"weights: {arguments.out}")


if __name__ == "__main__":
    main()
