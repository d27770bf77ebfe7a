"""A small network, and its last layer trained again on chosen samples, as in deep feature reweighting (DFR).

DFR (Kirichenko et al. 2022, arXiv 2204.02937): L1 logistic regression on standardised penultimate features,
an equal number of samples a group, the mean of several redraws.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.benchmarks.confounded import Images, Numbers, Split

WIDTH = 64
"""Penultimate features."""
STRENGTH = 1.0
"""Weight of the loss, summed over samples, against the L1 norm: scikit-learn's C at its default; nothing is tuned."""
_STEPS, _STILL = 400, 1e-4
"""Most steps, and how little weights move in the last."""

Features = NDArray[np.float64]


class Read(NamedTuple):
    """What the network makes of a split: penultimate features (n, width) and logits (n, classes)."""

    features: Features
    logits: NDArray[np.float64]


class Network(nn.Module):
    """Three convolutions and a dense layer for shapes, two dense layers for the smaller digits."""

    def __init__(self, side: int, classes: int) -> None:
        super().__init__()
        if side > 8:
            self.body = nn.Sequential(
                nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU(),
                nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
                nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(side // 8),
                nn.Flatten(), nn.Linear(24 * 2**2, WIDTH), nn.ReLU(),
            )  # fmt: skip
        else:
            self.body = nn.Sequential(
                nn.Flatten(), nn.Linear(side**2, 128), nn.ReLU(), nn.Linear(128, WIDTH), nn.ReLU()
            )
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images (n, 1, height, width)."""
        logits: Tensor = self.head(self.body(images))
        return logits

    @torch.no_grad()
    def read(self, images: Images) -> Read:
        """Features and logits of images (n, height, width)."""
        parts = [self.body(part) for part in torch.split(torch.from_numpy(images)[:, None], 512)]
        features = torch.cat(parts)
        return Read(features.double().numpy(), self.head(features).double().numpy())


def trained(split: Split, epochs: int, seed: int) -> Network:
    """A network by empirical risk minimisation (ERM): cross-entropy over all samples alike, by Adam."""
    torch.manual_seed(seed)
    network = Network(split.images.shape[-1], 1 + int(split.labels.max()))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # typed for tensors alone
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, weight_decay=1e-4, fused=True)
    images, labels = torch.from_numpy(split.images)[:, None], torch.from_numpy(split.labels)
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(len(labels)), 50):
            loss = nn.functional.cross_entropy(network(images[batch]), labels[batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return network


class Head(NamedTuple):
    """A last layer over standardised features."""

    mean: Features
    deviation: Features
    weights: Features
    """(width, classes)"""
    bias: Features

    def logits(self, features: Features) -> Features:
        """(n, classes) of features (n, width)."""
        logits: Features = (features - self.mean) / self.deviation @ self.weights + self.bias
        return logits


def retrained(read: Read, labels: Numbers, redraws: list[Numbers]) -> Head:
    """The mean of the last layers trained on each redraw: places in the split, as many in each."""
    mean, deviation = read.features.mean(axis=0), read.features.std(axis=0)
    deviation[deviation == 0] = 1
    scaled = (read.features - mean) / deviation
    one_hot = np.eye(read.logits.shape[1])[labels]
    chosen = np.stack(redraws)
    weights = l1_logistic(scaled[chosen], one_hot[chosen], STRENGTH)
    return Head(mean, deviation, weights[:, 1:].mean(axis=0), weights[:, 0].mean(axis=0))


def l1_logistic(inputs: Features, one_hot: Features, strength: float) -> Features:
    """Multinomial logistic regressions with an L1 norm: (r, n, d) and (r, n, classes) to weights (r, 1 + d, classes).

    Row 0 is the bias, without a norm. By accelerated proximal gradient (Beck & Teboulle 2009), all r at once.
    """
    count = inputs.shape[1]
    design = np.concatenate([np.ones((*inputs.shape[:2], 1)), inputs], axis=2)
    turned = design.transpose(0, 2, 1)
    # The largest curvature of a multinomial loss is at most half the largest eigenvalue.
    step = 2 * count / np.linalg.norm(design, ord=2, axis=(1, 2))[:, None, None] ** 2
    threshold = step / (strength * count)
    threshold = np.concatenate([0 * threshold, np.repeat(threshold, inputs.shape[2], axis=1)], axis=1)
    weights = ahead = np.zeros((len(inputs), design.shape[2], one_hot.shape[2]))
    pace = 1.0
    for _ in range(_STEPS):
        scores = design @ ahead
        shares = np.exp(scores - scores.max(axis=2, keepdims=True))
        shares /= shares.sum(axis=2, keepdims=True)
        moved = ahead - step * (turned @ (shares - one_hot)) / count
        following = np.sign(moved) * np.maximum(np.abs(moved) - threshold, 0)
        quicker = (1 + np.sqrt(1 + 4 * pace**2)) / 2
        ahead = following + (pace - 1) / quicker * (following - weights)
        moved_by = np.abs(following - weights).max()
        weights, pace = following, quicker
        if moved_by < _STILL:
            break
    return weights


def group_accuracies(logits: Features, split: Split) -> Features:
    """The share of each group, class × attribute, that is classified rightly."""
    right = logits.argmax(axis=1) == split.labels
    return np.array([right[split.groups == group].mean() for group in np.unique(split.groups)])
