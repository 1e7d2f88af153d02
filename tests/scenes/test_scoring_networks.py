"""The committed scoring networks, on rendered scenes whose contents are known: each answers its own question."""

import itertools
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.stats import spearmanr
from torch.nn import functional as F

from eval.corruptions import CORRUPTIONS, STEPS, corrupt
from eval.crops import WHOLE, Crops
from eval.features import crop_extractor, extractor_for
from eval.fid import features_to_fid
from experiments.scenes.renderer.scene import render, render_all, sample_scenes
from experiments.scenes.scene_counter import SceneCounter
from experiments.scenes.scene_features import DetailFeatures, SceneDistance, SceneFeatures
from experiments.scenes.training.autoencoder import to_tensor
from experiments.scenes.training.damaged import HARMLESS
from experiments.scenes.training.data import counting_scenes, spots, with_copies

UNSEEN = 90211  # a seed of `sample_scenes` that nothing else uses
SCENES = sample_scenes(144, UNSEEN)  # fewer are the first of these
CROPS = Crops(64, 4)
IMAGES = 8
BETWEEN = pytest.param((256, 256), marks=pytest.mark.slow)


@cache
def rendered_scene(index: int, height: int, width: int) -> np.ndarray:
    """(height, width, 3) of one of the unseen scenes; not to be changed."""
    return render(SCENES[index], height, width)


def rendered(count: int, height: int, width: int | None = None) -> np.ndarray:
    """(count, height, width, 3) of the first unseen scenes; square unless a width is given."""
    return np.stack([rendered_scene(index, height, width or height) for index in range(count)])


def crops_of(images, crops: Crops = CROPS) -> np.ndarray:
    return np.concatenate([crops.crops(image, str(i), i) for i, image in enumerate(images)])


@cache
def damaged(kind: str, step: int) -> list[np.ndarray]:
    """`IMAGES` damaged renders; not to be changed."""
    return [corrupt(image, kind, step, str(i)) for i, image in enumerate(rendered(IMAGES, 256))]


@cache
def damaged_crops(kind: str, step: int) -> np.ndarray:
    """(4 IMAGES, 64, 64, 3) crops of damaged renders; not to be changed."""
    return crops_of(damaged(kind, step))


@cache
def untouched_features() -> np.ndarray:
    """Of the crops of the same renders as they are."""
    return DetailFeatures()(damaged_crops("blur", 0))


@pytest.mark.parametrize("side", [128, pytest.param(256, marks=pytest.mark.slow), 512])
def test_structure_recognises_unseen_scenes(side):
    count = 48 if side < 512 else IMAGES
    found = SceneFeatures().predict(rendered(count, side))
    for factor in ("object", "colour", "background"):
        assert np.mean([f == getattr(s, factor) for f, s in zip(found[factor], SCENES[:count], strict=True)]) >= 0.97


def test_structure_finds_the_pose():
    """Centre and size within a twentieth of the frame's side on average, and in the right order."""
    network = SceneFeatures().network
    found = network.describe(to_tensor(rendered(72, 128)))["pose"].detach().numpy()
    truth = np.array([spots(scene)[0] for scene in SCENES[:72]])
    assert np.abs(found - truth).mean() < 0.05
    for axis in (0, 2):
        assert spearmanr(found[:, axis], truth[:, axis]).statistic > 0.9


def test_structure_features_see_composition_before_pixels():
    """Four objects instead of one, or quadrants that changed places, cost more FID than noise, JPEG or halos."""
    extractor = SceneFeatures()
    images = rendered(48, 128)
    reference = extractor(render_all(sample_scenes(144, UNSEEN + 1), 128, 128))

    def fid(changed) -> float:
        return features_to_fid(extractor(np.stack(changed)), reference)

    composed = [fid([render(with_copies(scene, 4), 128, 128) for scene in SCENES[:48]])]
    composed.append(fid([corrupt(image, "swapped quadrants", 2, str(i)) for i, image in enumerate(images)]))
    kinds = ("noise", "JPEG", "ringing")
    fine = [fid([corrupt(image, kind, 2, str(i)) for i, image in enumerate(images)]) for kind in kinds]
    assert min(composed) > max(fine)
    assert min(composed) > 2 * fid(images)


@pytest.mark.parametrize("kind", HARMLESS)
def test_detail_sees_each_damage(kind):
    """At the third of four steps in most crops; a crop of sky shows little, and what is enlarged may pass for blurred.
    FID to untouched crops grows with it.
    """
    extractor = DetailFeatures()
    alike = ("blur", "enlarged") if kind == "enlarged" else (kind,)
    assert sum(found in alike for found in extractor.damage(damaged_crops(kind, 3))[0]) / (4 * IMAGES) > 0.6
    fid = [features_to_fid(extractor(damaged_crops(kind, step)), untouched_features()) for step in (1, 4)]
    assert 0.01 < fid[0] < fid[1]


def test_detail_finds_nothing_in_untouched_crops():
    for size, count in ((128, 16), (256, 16), (512, 8)):
        kinds, strengths = DetailFeatures().damage(crops_of(rendered(count, size)))
        assert kinds.count("none") / len(kinds) > 0.6
        assert np.median(strengths) < 0.25  # 0.25 is step 1


@pytest.mark.parametrize("kind", ["blur", "enlarged"])
def test_detail_ranks_strengths(kind):
    means = [DetailFeatures().damage(damaged_crops(kind, step))[1].mean() for step in (0, *STEPS)]
    assert means == sorted(set(means))


def test_detail_hardly_sees_composition():
    """Images with four objects differ less from real ones than slightly damaged ones do."""
    extractor, reference = DetailFeatures(), untouched_features()
    repeated = [render(with_copies(scene, 4), 256, 256) for scene in SCENES[:IMAGES]]
    fid = features_to_fid(extractor(crops_of(repeated)), reference)
    for kind in ("blur", "dilation grid"):
        assert fid < features_to_fid(extractor(damaged_crops(kind, 2)), reference)


@pytest.mark.parametrize("size", [(128, 128), BETWEEN, (512, 512), (256, 384)])
def test_counter_on_single_objects(size):
    """One object is one, large or small, at any size of the image; wide ones, of which it has seen few, are harder."""
    assert np.abs(SceneCounter()(rendered(IMAGES, *size)) - 1).mean() < (0.1 if size[0] == size[1] else 0.15)


@pytest.mark.parametrize("side", [128, pytest.param(512, marks=pytest.mark.slow)])
def test_counter_counts_copies(side):
    """Mean error up to four, relative error beyond, and rank correlation over 1 to 36."""
    scenes = counting_scenes(32, UNSEEN)
    truth = np.array([scene.copies for scene in scenes])
    found = SceneCounter()(render_all(scenes, side, side))
    few = truth <= 4
    assert np.abs(found - truth)[few].mean() <= 0.3
    assert (np.abs(found - truth) / truth)[~few].mean() <= 0.15
    assert spearmanr(found, truth).statistic >= 0.97


def test_counter_counts_crowds():
    """Rows, stacks and heaps, where objects hide parts of each other: without a large bias, and in the right order."""
    scenes = [replace(scene, crowded=True) for scene in counting_scenes(24, UNSEEN) if scene.copies > 1]
    truth = np.array([scene.copies for scene in scenes])
    found = SceneCounter()(render_all(scenes, 256, 256))
    assert abs((found - truth).sum() / truth.sum()) < 0.25
    assert spearmanr(found, truth).statistic > 0.9


def test_counter_withstands_damage():
    """The second step of what samplers do to details changes a count of nine by less than one on average."""
    images = render_all([with_copies(scene, 9) for scene in SCENES[:8]], 256, 256)
    for kind in ("blur", "noise", "speckle", "dilation grid", "JPEG", "colour shift"):
        changed = np.stack([corrupt(image, kind, 2, str(i)) for i, image in enumerate(images)])
        assert np.abs(SceneCounter()(changed) - 9).mean() < 1, kind


def test_counts_of_images_side_by_side_add_up():
    numbers = zip(SCENES[:8], (1, 2, 3, 5) * 2, strict=True)
    images = render_all([with_copies(scene, number) for scene, number in numbers], 256, 256)
    pairs = np.concatenate([images[0::2], images[1::2]], axis=2)
    counts = SceneCounter()(images)
    np.testing.assert_allclose(SceneCounter()(pairs), counts[0::2] + counts[1::2], atol=0.9, rtol=0.1)


@pytest.mark.parametrize(("extractor", "size"), [(SceneFeatures, 256), (DetailFeatures, 64)])
def test_features_are_independent_of_batch(extractor, size):
    extractor, images = extractor(), rendered(5, size)
    together = extractor(images)
    assert together.shape == (5, extractor.dim)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.concatenate([extractor(image[None]) for image in images]), together, atol=1e-4)


def test_counts_are_independent_of_batch():
    images = render_all([with_copies(scene, 6) for scene in SCENES[:3]], 96, 160)
    together = SceneCounter()(images)
    assert together.dtype == np.float32
    np.testing.assert_allclose([SceneCounter()(image[None])[0] for image in images], together, atol=1e-3)


def test_an_image_without_objects_counts_as_one():
    """A count below one would be a negative repetition."""
    grey = np.full((2, 128, 128, 3), 127, np.uint8)
    assert (SceneCounter()(grey) >= 1).all()


def test_crops_have_an_extractor_of_their_own():
    extractor = SceneFeatures()
    assert extractor_for(extractor, WHOLE) is extractor
    assert isinstance(extractor_for(extractor, CROPS), DetailFeatures)
    assert crop_extractor(extractor).digest != extractor.digest
    detail = DetailFeatures()
    assert extractor_for(detail, CROPS) is detail


def test_distance_is_zero_for_equal_images_and_differentiable():
    images = to_tensor(rendered(3, 128))
    others = images.flip(0).requires_grad_()
    distances = SceneDistance()(images, others)
    assert distances.shape == (3,)
    assert distances[1] == 0  # the middle image is compared with itself
    assert (distances[[0, 2]] > 0.1).all()
    distances.sum().backward()
    assert others.grad.abs().sum() > 0


def test_distance_grows_with_blur():
    images = to_tensor(rendered(4, 128))
    blurred = [F.avg_pool2d(images, k, stride=1, padding=k // 2, count_include_pad=False) for k in (1, 3, 7, 15)]
    means = [SceneDistance()(images, each).mean().item() for each in blurred]
    assert all(a < b for a, b in itertools.pairwise(means))


@pytest.mark.parametrize("side", [48, 128])
def test_detail_takes_crops_of_other_sizes(side):
    """It sees damage in smaller and larger crops than it was trained with."""
    for kind in ("noise", "dilation grid"):
        crops = crops_of(damaged(kind, 3), Crops(side, 2))
        assert DetailFeatures().damage(crops)[0].count(kind) / len(crops) > 0.6


def test_every_trained_damage_is_one_of_eval():
    assert set(HARMLESS) < set(CORRUPTIONS)
