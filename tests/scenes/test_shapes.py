"""Shapes, lines, noise and the windows that small shapes are drawn in, against closed forms and slow loops."""

import itertools

import numpy as np
import pytest

from experiments.scenes.renderer import shapes
from experiments.scenes.renderer.frame import Frame
from experiments.scenes.renderer.shapes import (
    box,
    coverage,
    covered,
    ellipse,
    hashed,
    line,
    noise,
    periodic,
    polygon,
    segment,
    window,
)


def grid(n: int) -> tuple[np.ndarray, np.ndarray]:
    steps = ((np.arange(n) + 0.5) / n - 0.5).astype(np.float32)
    y, x = np.meshgrid(steps, steps, indexing="ij")
    return x, y


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        (lambda x, y: ellipse(x, y, 0.02, -0.03, 0.3, 0.3), np.pi * 0.09),
        (lambda x, y: ellipse(x, y, 0.0, 0.0, 0.4, 0.2), np.pi * 0.08),
        (lambda x, y: box(x, y, 0.1, 0.05, 0.3, 0.2), 0.24),
        (lambda x, y: box(x, y, 0.0, 0.0, 0.3, 0.2, corner=0.1), 0.24 - (4 - np.pi) * 0.01),
        (lambda x, y: polygon(x, y, (-0.4, 0.3), (0.0, -0.3), (0.4, 0.3)), 0.24),
        (lambda x, y: segment(x, y, -0.2, 0.0, 0.2, 0.0, 0.1), 0.08 + np.pi * 0.01),
    ],
    ids=["circle", "ellipse", "box", "rounded box", "triangle", "capsule"],
)
def test_coverage_integrates_to_area(shape, area):
    for n in (64, 256):
        x, y = grid(n)
        assert coverage(shape(x, y), 1 / n).mean() == pytest.approx(area, rel=0.01)


@pytest.mark.parametrize("n", [32, 64, 512])
def test_lines_keep_their_area_at_every_size(n):
    """Of width 0.02, from 0.6 to 10 pixels: thinner than a pixel they fade instead of getting wider."""
    x, _ = grid(n)
    assert line(x - np.float32(0.013), 0.02, 1 / n).mean() == pytest.approx(0.02, rel=0.02)
    assert line(x - x[0, n // 2], 0.02, 1 / n).max() == pytest.approx(min(1, 0.02 * n), rel=0.02)


def test_periodic_is_the_distance_to_the_nearest_point():
    t = np.linspace(-2, 2, 401)
    found = periodic(t, 0.3, 0.1)
    points = 0.1 + 0.3 * np.arange(-20, 20)
    distances = t[:, None] - points
    nearest = np.abs(distances).argmin(1)
    np.testing.assert_allclose(np.abs(found), np.abs(distances).min(1), atol=1e-9)
    inside = np.abs(found) < 0.149  # halfway between two points either is the nearest
    np.testing.assert_allclose(found[inside], distances[np.arange(401), nearest][inside], atol=1e-9)


def slow_hash(row: int, column: int, seed: int) -> float:
    """In Python's integers."""
    h = (row * 0x9E3779B1 % 2**32) ^ ((column * 0x85EBCA77 + seed) % 2**32)
    for shift, factor in ((15, 0x2C1B3C6D), (12, 0x297A2D39)):
        h = (h ^ (h >> shift)) * factor % 2**32
    return (h ^ (h >> 15)) / 2**31 - 1


def test_hashes_are_those_of_whole_numbers_and_uniform():
    rows, columns = np.arange(-3, 4), np.arange(-5, 2)
    expected = [[slow_hash(int(r), int(c), 99) for c in columns] for r in rows]
    np.testing.assert_allclose(hashed(rows, columns, 99), expected, atol=1e-6)
    many = hashed(np.arange(-150, 150), np.arange(300), 5).astype(float)
    assert -1 <= many.min() < -0.999
    assert 0.999 < many.max() <= 1
    assert abs(many.mean()) < 0.01
    assert many.var() == pytest.approx(1 / 3, rel=0.02)
    for moved in (np.roll(many, 1, 0), np.roll(many, 1, 1), hashed(np.arange(-150, 150), np.arange(300), 6)):
        assert abs(np.corrcoef(many.ravel(), moved.ravel())[0, 1]) < 0.02


def slow_noise(x: float, y: float, seed: int, cell: float, pixel: float, stretch: float, roughness: float) -> float:
    """Octaves of value noise at one point."""
    total, amplitude = 0.0, 1.0
    while cell > pixel:
        u, v = x / (cell * stretch), y / cell
        column, row = int(np.floor(u)), int(np.floor(v))
        a, b = (t * t * (3 - 2 * t) for t in (u - column, v - row))
        corners = {(i, j): slow_hash(row + i, column + j, seed) for i in (0, 1) for j in (0, 1)}
        value = sum((b if i else 1 - b) * (a if j else 1 - a) * corner for (i, j), corner in corners.items())
        total += min(1.0, (cell / pixel - 1) / 2) * amplitude * value
        seed, cell, amplitude = (seed * 747796405 + 2891336453) % 2**32, cell / 2, amplitude * roughness
    return total


@pytest.mark.parametrize(("stretch", "roughness"), [(1.0, 0.6), (4.0, 0.75)])
def test_noise_is_that_of_a_slow_loop(stretch, roughness):
    x, y = grid(24)
    found = noise(x, y, 1234, 0.3, 1 / 24, stretch, roughness)
    expected = [
        [slow_noise(float(x[i, j]), float(y[i, j]), 1234, 0.3, 1 / 24, stretch, roughness) for j in range(24)]
        for i in range(24)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_noise_has_the_same_pattern_at_every_size():
    """Four times as many pixels have the same values where both have them, and finer ones besides."""
    small, large = (noise(*grid(n), 7, 0.1, 1 / n) for n in (128, 512))
    averaged = large.reshape(128, 4, 128, 4).mean((1, 3))
    assert np.abs(averaged - small).mean() < 0.15 * small.std()
    assert np.corrcoef(averaged.ravel(), small.ravel())[0, 1] > 0.98
    assert (large - np.repeat(np.repeat(averaged, 4, 0), 4, 1)).std() > 0.1 * small.std()


def test_window_and_covered_are_the_rows_and_columns_of_a_box():
    x, y = grid(20)
    rows, columns = window(x, y, 0.1, -0.2, 0.15, 0.1)
    inside = (np.abs(x - 0.1) < 0.15) & (np.abs(y + 0.2) < 0.1)
    assert inside[rows, columns].all()
    assert inside.sum() == inside[rows, columns].size
    assert covered(inside.astype(np.float32)) == (rows, columns)
    assert covered(np.zeros((3, 4), np.float32)) == (slice(0, 0), slice(0, 0))
    assert x[window(x, y, 3.0, 0.0, 0.1, 0.1)].size == 0


DRAWN = {
    "ellipse": (0.1, -0.2, 0.2, 0.03),
    "disc": (-0.3, 0.3, 0.01, 0.01),
    "box": (0.0, 0.2, 0.24, 0.05, 0.02),
    "polygon": ((-0.13, 0.12), (-0.13, 0.38), (-0.34, 0.5)),
    "segment": (-0.25, 0.06, -0.36, 0.26, 0.045),
}


@pytest.mark.parametrize(("name", "tilt", "mirror"), [*itertools.product(DRAWN, (-0.07, 0.0, 0.07), (-1.0, 1.0))])
def test_shapes_drawn_in_windows_equal_those_on_the_whole_canvas(name, tilt, mirror):
    function, numbers = {"disc": "ellipse"}.get(name, name), DRAWN[name]
    for n in (12, 50, 300):
        u, v = (1.4 * side for side in grid(n))
        x, y = mirror * (np.cos(tilt) * u + np.sin(tilt) * v), -np.sin(tilt) * u + np.cos(tilt) * v
        frame = Frame(x, y, (u, v), tilt, mirror, 1.4 / n, np.random.default_rng(0))
        expected = frame.fill(getattr(shapes, function)(x, y, *numbers))
        np.testing.assert_array_equal(getattr(frame, function)(*numbers), expected)


def test_dots_are_the_largest_of_their_discs():
    x, y = grid(80)
    frame = Frame(x, y, (x, y), 0.0, 1.0, 1 / 80, np.random.default_rng(0))
    spots = [(-0.2, 0.1), (-0.19, 0.11), (0.49, 0.49)]
    discs = [line(np.hypot(x - cx, y - cy), 0.03, 1 / 80) for cx, cy in spots]
    np.testing.assert_allclose(frame.dots(spots, 0.015), np.max(discs, axis=0), atol=1e-6)
