"""Reference sets: how their images are read."""

import os

import numpy as np
import pytest
from PIL import Image
from threadpoolctl import threadpool_info

from eval.crops import WHOLE, Crops
from eval.images import ImageFile
from eval.index import look_up
from experiments.scenes.rendered import rendered_images, renderers
from experiments.scoring.references import reference_features
from experiments.setup.runs import ReferenceSpec
from tests.eval.helpers import MeanColour


@pytest.mark.parametrize(("small", "decoded"), [(0, 5), (2, 5 + 3)])
def test_an_image_is_decoded_once_if_all_croppings_use_the_same(small, decoded, tmp_path, monkeypatch):
    """Images that are too small to be cropped leave other ones for crops than for whole images."""
    rng = np.random.default_rng(0)
    for number in range(5):
        side = 16 if number < small else 24
        pixels = rng.integers(256, size=(side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    look_up([ImageFile(path, path.name) for path in tmp_path.glob("*.png")], tmp_path / "cache")
    reads, pixels_of = [], ImageFile.pixels
    monkeypatch.setattr(ImageFile, "pixels", lambda image: reads.append(image) or pixels_of(image))
    spec = ReferenceSpec(str(tmp_path))
    croppings = [WHOLE, Crops(8, 2, 0)]
    whole, crops = reference_features(spec, MeanColour(), croppings, tmp_path / "cache", (24, 24))
    assert len(reads) == decoded
    assert (whole.protocol["n"], crops.protocol["n"]) == (5, 5 - small)
    assert (len(whole.features), len(crops.features)) == (5, 2 * (5 - small))


def test_many_scenes_are_rendered_by_processes_with_one_thread_of_blas_and_few_in_this_one():
    """The same pixels."""
    image, found = rendered_images(1, 3, 24, 32)[0], []
    for pixels, here in ((24 * 32, True), (512 * 256**2, False)):
        with renderers(pixels) as pool:
            found.append(pool.submit(image.pixels).result())
            assert (pool.submit(os.getpid).result() == os.getpid()) == here
            pools = pool.submit(threadpool_info).result()
    assert pools
    assert {pool["num_threads"] for pool in pools} == {1}
    np.testing.assert_array_equal(*found)
