"""The forces of t-SNE: attraction along a graph, and repulsion of all points by a potential on a grid.

All points repel each other by the gradient of one potential, the sum of 1 / (1 + d²) over all points (van der Maaten
and Hinton 2008). As in Linderman et al. 2019 the sum is a convolution, taken by Fourier transforms of a grid. Here the
grid holds cubic B-splines (Essmann et al. 1995), whose gradient is known: one transform and one back a step.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.fft import fft, ifft, irfft, next_fast_len, rfft, rfft2

from atlas_builder.link.exact_knn import Doubles, Floats

_SPACING = 0.5  # of the grid, where the potential of a point falls to half at a distance of 1
_MOST_NODES = 2048  # along an axis: wider maps have a coarser grid
_AROUND = 4  # nodes along an axis that a point counts at
_LONGEST_STEP = 5.0
_SLOWEST_GAIN = 0.01


class Repulsion:
    """The repulsion of all points by each other; what depends on the grid alone is kept from one step to the next."""

    def __init__(self) -> None:
        self._grid: tuple[int, int, float] | None = None
        self._spectrum: Floats = np.zeros((0, 0), np.float32)

    def of(self, places: Doubles) -> Doubles:
        """The gradient by each of (n, 2) places of the logarithm of Σ 1 / (1 + d²) over all pairs, halved: (n, 2)."""
        low = places.min(axis=0)
        span = places.max(axis=0) - low
        spacing = max(_SPACING, float(span.max()) / _MOST_NODES)
        rows, columns = (int(length / spacing) + _AROUND + 1 for length in span)
        nodes = np.zeros((rows, columns), np.float32)
        _count(places, low, spacing, nodes)
        potential = self._potential(nodes, spacing)
        gradient = np.empty_like(places)
        # A point is in its own potential, by 1.
        total = _gradient(places, low, spacing, potential, gradient) - len(places)
        return gradient / max(total, 1e-12)

    def _potential(self, nodes: Floats, spacing: float) -> Floats:
        """The coefficients of the potential of the points at (rows, columns) nodes: the same shape."""
        # Twice as wide, or the ends of a grid would be next to each other; in steps, so that the spectrum can be kept.
        height, width = (next_fast_len(-(-2 * length // 16) * 16, real=True) for length in nodes.shape)
        if self._grid != (height, width, spacing):
            self._grid, self._spectrum = (height, width, spacing), _spectrum(height, width, spacing)
        # Rows that are empty, or not asked for, are left out of the transforms along them.
        spectrum = fft(rfft(nodes, n=width, axis=1), n=height, axis=0, overwrite_x=True)
        spectrum *= self._spectrum
        back = ifft(spectrum, axis=0, overwrite_x=True)[: nodes.shape[0]]
        potential: Floats = irfft(back, n=width, axis=1)
        return potential


def _spectrum(height: int, width: int, spacing: float) -> Floats:
    """The Fourier transform of 1 / (1 + d²) as B-splines at both of two points: (height, width // 2 + 1)."""
    down, across = (np.minimum(np.arange(length), length - np.arange(length)) * spacing for length in (height, width))
    values = rfft2(1 / (1 + down[:, None] ** 2 + across**2)).real  # even, so real
    # B-splines through the values at the nodes: those of neighbouring nodes count there for a sixth.
    splines = [(4 + 2 * np.cos(2 * np.pi * np.arange(length) / length)) / 6 for length in (height, width)]
    found: Floats = (values / (splines[0][:, None] * splines[1][: width // 2 + 1]) ** 2).astype(np.float32)
    return found


@njit(nogil=True, cache=True)
def _spline(t: float) -> tuple[float, float, float, float]:
    """The cubic B-splines of the nodes around a point at `t`, 0 to 1, between the second and the third."""
    s = 1 - t
    return s * s * s / 6, (4 - 6 * t * t + 3 * t * t * t) / 6, (4 - 6 * s * s + 3 * s * s * s) / 6, t * t * t / 6


@njit(nogil=True, cache=True)
def _slope(t: float) -> tuple[float, float, float, float]:
    """The derivatives of `_spline`."""
    s = 1 - t
    return -s * s / 2, (3 * t * t - 4 * t) / 2, (4 * s - 3 * s * s) / 2, t * t / 2


@njit(nogil=True, cache=True)
def _count(places: Doubles, low: Doubles, spacing: float, nodes: Floats) -> None:
    """Spread every point over the nodes around it, (rows, columns)."""
    for point in range(len(places)):
        down, across = (places[point, 0] - low[0]) / spacing, (places[point, 1] - low[1]) / spacing
        row, column = int(down), int(across)
        of_row, of_column = _spline(down - row), _spline(across - column)
        for i in range(_AROUND):
            for j in range(_AROUND):
                nodes[row + i, column + j] += of_row[i] * of_column[j]


@njit(nogil=True, cache=True)
def _gradient(places: Doubles, low: Doubles, spacing: float, potential: Floats, gradient: Doubles) -> float:
    """Half the gradient of the potential at each point, into (n, 2); returns the sum of the potential at all."""
    total = 0.0
    for point in range(len(places)):
        down, across = (places[point, 0] - low[0]) / spacing, (places[point, 1] - low[1]) / spacing
        row, column = int(down), int(across)
        of_row, of_column = _spline(down - row), _spline(across - column)
        row_slope, column_slope = _slope(down - row), _slope(across - column)
        by_row = by_column = 0.0
        for i in range(_AROUND):
            value = slope = 0.0
            for j in range(_AROUND):
                here = potential[row + i, column + j]
                value += of_column[j] * here
                slope += column_slope[j] * here
            total += of_row[i] * value
            by_row += row_slope[i] * value
            by_column += of_row[i] * slope
        gradient[point, 0], gradient[point, 1] = by_row / (2 * spacing), by_column / (2 * spacing)
    return total


@njit(nogil=True, cache=True)
def attraction(places: Doubles, starts: NDArray[np.int64], others: NDArray[np.int64]) -> Doubles:
    """Σ (y − y′) / (1 + d²) over the points that each is joined to, those of point i `others[starts[i]:starts[i + 1]]`.

    (n, 2) places, (n + 1,) starts, each joint in both directions: (n, 2).
    """
    forces = np.empty_like(places)
    for point in range(len(places)):
        down = across = 0.0
        for edge in range(starts[point], starts[point + 1]):
            by_row = places[point, 0] - places[others[edge], 0]
            by_column = places[point, 1] - places[others[edge], 1]
            near = 1 / (1 + by_row * by_row + by_column * by_column)
            down += near * by_row
            across += near * by_column
        forces[point, 0], forces[point, 1] = down, across
    return forces


@njit(nogil=True, cache=True)
def move(places: Doubles, gradient: Doubles, steps: Doubles, gains: Doubles, rate: float, momentum: float) -> None:
    """A step of gradient descent with momentum and gains (Jacobs 1988), in place, all (n, 2); the mean is then zero.

    `steps` are those of the step before. The gain of a coordinate grows by 0.2 while its gradient points against
    its last step, and falls by a fifth where not, as in van der Maaten and Hinton 2008.
    """
    mean = np.zeros(2)
    for point in range(len(places)):
        for axis in range(2):
            if np.sign(steps[point, axis]) != np.sign(gradient[point, axis]):
                gains[point, axis] += 0.2
            else:
                gains[point, axis] = gains[point, axis] * 0.8 + _SLOWEST_GAIN
            steps[point, axis] *= momentum
            steps[point, axis] -= rate * gains[point, axis] * gradient[point, axis]
        length = np.sqrt(steps[point, 0] ** 2 + steps[point, 1] ** 2)
        for axis in range(2):
            if length > _LONGEST_STEP:
                steps[point, axis] *= _LONGEST_STEP / length
            places[point, axis] += steps[point, axis]
            mean[axis] += places[point, axis] / len(places)
    for point in range(len(places)):
        for axis in range(2):
            places[point, axis] -= mean[axis]
