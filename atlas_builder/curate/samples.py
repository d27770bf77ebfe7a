"""Samples chosen by where they lie in the range of their class's logit."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from atlas_builder.rounding import first_rank


def mid_range(logits: ArrayLike, labels: ArrayLike, *, band: tuple[float, float] = (0.0, 0.1)) -> NDArray[np.int64]:
    """Choose the samples whose logit of their own class is in a band of that class's.

    Of the m samples of a class, in ascending order of their own logit (equal ones in the order
    that they are in), those of rank r, from 0, with low · m ≤ r < high · m. So bands that adjoin share no
    sample and leave out none, and a band from 0 has one of each class at least; another may have none of a
    class of few samples.

    Args:
        logits: (samples, classes), or each sample's logit of its own class, (samples,). Samples
            whose own logit is NaN are left out.
        labels: The class of each sample, (samples,): the column of `logits` where it has columns, else
            anything that can be ordered.
        band: Two quantiles, from 0 to 1, of the logits of a class.

    Returns:
        Indices of samples, ascending.

    Raises:
        ValueError: Quantiles are out of order or outside 0 to 1, shapes do not fit, or a label is no column.
    """
    low, high = band
    if not 0 <= low < high <= 1:
        raise ValueError(f"band must be two ascending quantiles from 0 to 1, like (0.0, 0.1), but is {low}, {high}.")
    own, classes = _own_logits(np.asarray(logits), np.asarray(labels))
    known = np.flatnonzero(~np.isnan(own))
    order = known[np.lexsort((own[known], classes[known]))]
    samples = np.bincount(classes[order])
    chosen = [
        of_class[first_rank(low, len(of_class)) : first_rank(high, len(of_class))]
        for of_class in np.split(order, np.cumsum(samples)[:-1])
    ]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def balanced(labels: ArrayLike, mid: ArrayLike, *, seed: int) -> NDArray[np.int64]:
    """Choose equally many of each label from samples: all of the rarest, and so many of each other at random.

    Args:
        labels: The label of each sample, (samples,): a class, an attribute, or anything that can be ordered.
        mid: Indices of samples, as `mid_range` gives them; one that stands there twice counts once.
        seed: Seed of the choice.

    Returns:
        Indices of samples, ascending; the labels are those that occur at `mid`.

    Raises:
        ValueError: `labels` is not one for each sample, or `mid` no indices of them.
    """
    every, places = np.asarray(labels), np.asarray(mid)
    if every.ndim != 1:
        raise ValueError(f"labels must be one a sample, but are of shape {every.shape}.")
    if places.ndim != 1 or (len(places) and places.dtype.kind not in "iu"):
        raise ValueError(f"mid must be a list of indices, but is of shape {places.shape} and type {places.dtype}.")
    if len(places) and not 0 <= places.min() <= places.max() < len(every):
        raise ValueError(f"mid must be indices from 0 to {len(every) - 1}, but has {places.min()} to {places.max()}.")
    places = np.unique(places.astype(np.int64))
    _, label = np.unique(every[places], return_inverse=True)
    if not len(places):
        return places
    least = np.bincount(label).min()
    drawn = np.random.default_rng(seed)
    chosen = [drawn.choice(places[label == one], least, replace=False) for one in range(label.max() + 1)]
    return np.sort(np.concatenate(chosen))


def _own_logits(
    logits: NDArray[np.generic], labels: NDArray[np.generic]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Each sample's logit of its own class, and the number of its class."""
    if logits.ndim not in (1, 2) or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"logits must be (samples,) or (samples, classes) and labels (samples,), but are of shapes {logits.shape} "
            f"and {labels.shape}."
        )
    if logits.ndim == 1:
        classes = np.unique(labels, return_inverse=True)[1].astype(np.int64)
        return logits.astype(np.float64), classes
    if not len(labels):
        return np.zeros(0), np.zeros(0, np.int64)
    if labels.dtype.kind not in "iub":
        raise ValueError(f"labels must be whole numbers, the columns of logits, but are of type {labels.dtype}.")
    classes = labels.astype(np.int64)
    if not 0 <= classes.min() <= classes.max() < logits.shape[1]:
        raise ValueError(
            f"labels must be columns of logits, from 0 to {logits.shape[1] - 1}, but go from {classes.min()} to "
            f"{classes.max()}."
        )
    return logits[np.arange(len(labels)), classes].astype(np.float64), classes
