"""Known damage to real images, in four steps: what a score must react to if it is to be trusted.

Every corruption is a function of (H, W, 3) uint8 pixels, a strength and a random generator, and returns pixels of the
same shape. `corrupt` seeds the generator by the image's name and not by the step, so that a larger step does more of
the same.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from eval.crops import keyed_generator

STEPS = (1, 2, 3, 4)
RINGING_SIGMA = 2.0  # pixels
GRAIN = 1.0, 2.0  # pixels: the sigma that speckles are smoothed with
PATCH_SIGMA = 12.0  # pixels
GRID = 4  # the dilation at sixteen times the training area


def blur(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur of ``sigma`` pixels."""
    return as_pixels(smoothed(image, sigma))


def enlarge(image: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    """What an upscaler from ``factor`` times smaller images gives: downsample, then upsample with Lanczos."""
    height, width = image.shape[:2]
    small = max(1, round(width / factor)), max(1, round(height / factor))
    reduced = Image.fromarray(image).resize(small, Image.Resampling.LANCZOS)
    return np.asarray(reduced.resize((width, height), Image.Resampling.LANCZOS))


def noise(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Independent Gaussian noise of ``sigma`` grey levels."""
    return as_pixels(image + sigma * rng.standard_normal(image.shape))


def speckle(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Coloured grains of a few pixels, in patches: noise that is left in a latent looks so when it is decoded.

    Gaussian noise of about an octave: ``sigma`` grey levels where it is strongest, a tenth of it between the patches.
    """
    white, grain = rng.standard_normal(image.shape), rng.uniform(*GRAIN)
    fine, coarse = smoothed(white, grain), smoothed(white, 2 * grain)
    grains = (fine - coarse) / (fine - coarse).std()
    where = ndimage.gaussian_filter(rng.standard_normal(image.shape[:2]), PATCH_SIGMA)
    strength = np.clip(0.5 + 0.5 * where / where.std(), 0.1, 1)
    return as_pixels(image + sigma * strength[..., None] * grains)


def dilation_grid(image: np.ndarray, shift: float, rng: np.random.Generator, d: int = GRID) -> np.ndarray:
    """d x d interleaved sub-images that do not match: each is displaced by up to ``shift`` pixels per axis.

    A convolution of dilation d connects only pixels at multiples of d, so that d x d sub-images are processed
    independently of each other; this is the artefact that it leaves where nothing else aligns them.
    """
    height, width = image.shape[:2]
    offsets = np.round(shift * rng.uniform(-1, 1, (d, d, 2))).astype(int)
    result = image.copy()
    for row in range(d):
        for column in range(d):
            down, right = offsets[row, column]
            rows = np.clip(np.arange(row, height, d) + down, 0, height - 1)
            columns = np.clip(np.arange(column, width, d) + right, 0, width - 1)
            result[row::d, column::d] = image[np.ix_(rows, columns)]
    return result


def jpeg(image: np.ndarray, quality: float, rng: np.random.Generator) -> np.ndarray:
    """Compressed as JPEG of ``quality`` and decoded."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=int(quality))
    return np.asarray(Image.open(buffer))


def colour_shift(image: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """A wrong white balance: red multiplied by 1 + ``amount``, blue by 1 - ``amount``."""
    return as_pixels(image * np.array([1 + amount, 1, 1 - amount]))


def ringing(image: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Halos around edges: an unsharp mask of ``amount`` times the image's detail."""
    return as_pixels(image + amount * (image - smoothed(image, RINGING_SIGMA)))


def swap_quadrants(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Diagonally opposite quadrants change places: of each the central window of ``share`` of its sides.

    Twice is the identity. With an odd side the middle line stays.
    """
    half = np.array(image.shape[:2]) // 2
    window = np.round(share * half).astype(int)
    first, far = (half - window) // 2, np.array(image.shape[:2]) - half
    result = image.copy()
    for (top, left), (other_top, other_left) in (((0, 0), far), ((0, far[1]), (far[0], 0))):
        here = box(first + (top, left), window)
        there = box(first + (other_top, other_left), window)
        result[here], result[there] = image[there], image[here]
    return result


def crop_object(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A zoom that cuts the subject: the window of ``share`` of the sides at a random corner, enlarged with Lanczos."""
    height, width = image.shape[:2]
    down, right = rng.integers(0, 2, 2)
    top, left = down * (1 - share) * height, right * (1 - share) * width
    region = (left, top, left + share * width, top + share * height)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS, box=region))


def box(corner: np.ndarray, size: np.ndarray) -> tuple[slice, slice]:
    """Slices of the window of ``size`` (height, width) at ``corner`` (top, left)."""
    return slice(corner[0], corner[0] + size[0]), slice(corner[1], corner[1] + size[1])


def smoothed(image: np.ndarray, sigma: float) -> np.ndarray:
    """(H, W, 3) float64 after a Gaussian filter of ``sigma`` pixels."""
    return ndimage.gaussian_filter(image.astype(np.float64), (sigma, sigma, 0))


def as_pixels(values: np.ndarray) -> np.ndarray:
    """Rounded and clipped to uint8."""
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Corruption:
    """A kind of damage with its strength at each of ``STEPS``, and the strength's meaning."""

    apply: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
    strengths: tuple[float, float, float, float]
    unit: str


CORRUPTIONS: dict[str, Corruption] = {
    "blur": Corruption(blur, (1, 2, 4, 8), "sigma in pixels"),
    "enlarged": Corruption(enlarge, (2, 4, 8, 16), "factor"),
    "noise": Corruption(noise, (5, 10, 20, 40), "sigma in grey levels"),
    "speckle": Corruption(speckle, (8, 16, 32, 64), "sigma in grey levels where it is strongest"),
    "dilation grid": Corruption(dilation_grid, (1, 2, 4, 8), "largest shift in pixels, 4x4 sub-images"),
    "JPEG": Corruption(jpeg, (60, 30, 15, 5), "quality"),
    "colour shift": Corruption(colour_shift, (0.05, 0.1, 0.2, 0.4), "gain of red, loss of blue"),
    "ringing": Corruption(ringing, (0.5, 1, 2, 4), "amount of an unsharp mask"),
    "swapped quadrants": Corruption(swap_quadrants, (0.25, 0.5, 0.75, 1), "share of the quadrants' sides"),
    "cropped object": Corruption(crop_object, (0.85, 0.7, 0.55, 0.4), "share of the sides that remains"),
}


def corrupt(image: np.ndarray, kind: str, step: int, name: str) -> np.ndarray:
    """Damage an image.

    Args:
        image: (H, W, 3) uint8.
        kind: a key of ``CORRUPTIONS``.
        step: 1 to 4, each stronger than the one before; 0 leaves the image untouched.
        name: the image's name, which seeds what is random. The same image gets the same damage at every call.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: unknown kind or step.
    """
    if kind not in CORRUPTIONS:
        raise ValueError(f"unknown corruption {kind!r}: choose from {', '.join(CORRUPTIONS)}")
    if step not in (0, *STEPS):
        raise ValueError(f"a corruption has steps 0 to {STEPS[-1]}, not {step}")
    if step == 0:
        return image
    corruption = CORRUPTIONS[kind]
    return corruption.apply(image, corruption.strengths[step - 1], keyed_generator(f"{kind}:{name}"))
