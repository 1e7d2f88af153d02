"""Training of the scoring networks: what they are shown and what they should answer, and a few steps of each."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from eval.corruptions import CORRUPTIONS
from experiments.scenes.model import BASE_PX
from experiments.scenes.renderer.scene import BACKGROUNDS, render, render_all, sample_scenes
from experiments.scenes.scene_features import SceneFeatures
from experiments.scenes.train import add_to_report
from experiments.scenes.training import counting, detail, structure
from experiments.scenes.training.clutter import bent, degraded, with_fragments
from experiments.scenes.training.counting import count_objects, density_target, prepare
from experiments.scenes.training.damaged import (
    DAMAGES,
    HARMLESS,
    SLIGHTEST,
    CropSource,
    crops_of,
    damage,
    damaged_crops,
)
from experiments.scenes.training.data import MOST_COPIES, SAMPLED_SEED, counting_scenes, spots, with_copies
from experiments.scenes.training.sampled import mosaics, sampled_objects

TINY = (CropSource(128, 6, 4),)


def few_steps(schedule, steps=4, batch=6):
    return replace(schedule, steps=steps, batch=batch, warmup=2)


def random_image(side=96):
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_counting_scenes_have_one_to_36_copies():
    scenes = counting_scenes(2000, 1)
    copies = np.array([scene.copies for scene in scenes])
    assert set(copies) == set(range(1, MOST_COPIES + 1))
    assert np.mean(copies == 1) == pytest.approx(0.3, abs=0.04)
    assert np.mean([scene.crowded for scene in scenes if scene.copies > 1]) == pytest.approx(0.4, abs=0.05)
    assert not any(scene.crowded for scene in scenes if scene.copies == 1)
    assert counting_scenes(5, 1) != counting_scenes(5, 2)


@pytest.mark.parametrize("shape", [(256, 256), (256, 384), (130, 70)])
def test_density_sums_to_the_number_of_objects(shape):
    for copies in (1, 4, 36):
        target = density_target(spots(with_copies(sample_scenes(1, 3)[0], copies)), *shape)
        assert target.shape == (-(-shape[0] // 8), -(-shape[1] // 8))
        assert target.sum() == pytest.approx(copies, rel=1e-5)
        assert (target >= 0).all()


def test_density_lies_on_the_objects():
    """Two objects: each half of the image holds one, and the mean position of the density is the object's."""
    target = density_target([(-0.25, 0.1, 0.2), (0.25, -0.2, 0.2)], 256, 256).double()
    left, right = target[:, :16], target[:, 16:]
    assert left.sum() == pytest.approx(1, abs=1e-3)
    rows, columns = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(32) + 0.5, indexing="ij")
    assert (left * rows[:, :16]).sum() * 8 == pytest.approx(128 + 0.1 * 256, abs=0.5)
    assert (right * columns[:, 16:]).sum() * 8 == pytest.approx(128 + 0.25 * 256, abs=0.5)


def test_density_is_where_the_renderer_paints():
    """The image with the object differs from the one without it (another place) around the density's peak."""
    scene = replace(sample_scenes(1, 5)[0], copies=4)
    image, places = render(scene, 256, 256).astype(int), spots(scene)
    colour = {(x, y): image[int(128 + 256 * y), int(128 + 256 * x)] for x, y, _ in places}
    plain = np.median(image[:8].reshape(-1, 3), axis=0)
    assert len(colour) == 4
    assert all(np.abs(value - plain).max() > 30 for value in colour.values())


def test_images_are_analysed_at_a_short_side_of_256():
    for size, expected in (((64, 64), (256, 256)), ((512, 768), (256, 384)), ((256, 256), (256, 256))):
        pixels = prepare(np.full((1, *size, 3), 255, np.uint8))
        assert pixels.shape == (1, 3, *expected)
        torch.testing.assert_close(pixels, torch.ones_like(pixels))


def test_fragments_change_some_images_but_hide_no_object():
    scenes = [with_copies(scene, 3) for scene in sample_scenes(24, 2)]
    images, places = render_all(scenes, 128, 128), [spots(scene) for scene in scenes]
    found = with_fragments(images, places, np.random.default_rng(0))
    changed = (found != images).any(axis=(1, 2, 3))
    assert 0.1 < changed.mean() < 0.7
    for before, after, own in zip(images, found, places, strict=True):
        for x, y, size in own:
            near = slice(int(64 + 128 * (y - 0.2 * size)), int(64 + 128 * (y + 0.2 * size)) + 1)
            across = slice(int(64 + 128 * (x - 0.2 * size)), int(64 + 128 * (x + 0.2 * size)) + 1)
            np.testing.assert_array_equal(after[near, across], before[near, across])
    np.testing.assert_array_equal(with_fragments(images, places, np.random.default_rng(0)), found)


def test_bent_images_keep_their_order():
    """A ramp shows how far each pixel has come: a few hundredths of the side, smoothly, hardly ever across another."""
    ramp = torch.linspace(-1, 1, 128).expand(4, 1, 128, 128)
    moves = []
    for seed in range(8):
        found = bent(ramp, torch.Generator().manual_seed(seed))
        middle = found[:, 0, 16:-16, 16:-16]
        assert (middle.diff(dim=2) > 0).double().mean() > 0.97
        moves.append(((middle - ramp[:, 0, 16:-16, 16:-16]) / 2).std())
    assert 0.002 < min(moves) < max(moves) < 0.03
    assert torch.equal(bent(ramp, torch.Generator().manual_seed(3)), bent(ramp, torch.Generator().manual_seed(3)))


def test_mosaics_have_their_samples_where_their_places_say():
    """Each place is the centre of a tile that holds the sample, whose object is as far from the tile's centre."""
    samples = np.stack([np.full((64, 64, 3), 40 * i + 20, np.uint8) for i in range(5)])
    places = [(0.02 * i, -0.03 * i, 0.5 + 0.01 * i) for i in range(5)]
    images, found = mosaics(samples, places, 60, 128, seed=1)
    assert images.shape == (60, 128, 128, 3)
    assert {len(each) for each in found} == {1, 4, 9, 16}
    for image, spots_found in zip(images, found, strict=True):
        k = round(len(spots_found) ** 0.5)
        for x, y, size in spots_found:
            shade = image[int((y + 0.5) * 128), int((x + 0.5) * 128), 0]
            i = (int(shade) - 20) // 40
            column, row = (int((value + 0.5) * k) for value in (x, y))
            expected = ((column + 0.5) / k - 0.5 + places[i][0] / k, (row + 0.5) / k - 0.5 + places[i][1] / k)
            np.testing.assert_allclose([x, y, size], [*expected, places[i][2] / k])


def test_samples_of_something_else_are_left_out(tmp_path):
    """Rendered scenes in the place of samples: those of another caption are found, the others keep their places."""
    scenes = sample_scenes(12, SAMPLED_SEED)
    shown = [scenes[5], *scenes[1:11], scenes[3]]  # the first and the last are of other captions
    np.save(tmp_path / "sampled.npy", render_all(shown, BASE_PX, BASE_PX))
    images, places = sampled_objects(None, SceneFeatures().network, 12, tmp_path / "sampled.npy")
    np.testing.assert_array_equal(images, render_all(scenes[1:11], BASE_PX, BASE_PX))
    np.testing.assert_allclose(places, [spots(scene)[0] for scene in scenes[1:11]], atol=0.05)


def test_degraded_images_stay_recognisable():
    images = render_all(sample_scenes(8, 2), 128, 128)
    for seed in range(6):
        pixels = degraded(images, np.random.default_rng(seed))
        assert pixels.shape == (8, 3, 128, 128)
        for image, found in zip(images, pixels, strict=True):
            before = image.transpose(2, 0, 1).ravel() / 127.5 - 1
            assert np.corrcoef(before, found.numpy().ravel())[0, 1] > 0.7


@pytest.mark.parametrize("kind", HARMLESS)
def test_damage_interpolates_between_the_steps_of_eval(kind):
    """Full strength is the last step, a half the second, and the error grows with the strength."""
    image = render(sample_scenes(1, 0)[0], 96, 96)
    for strength, step in ((1.0, 4), (0.5, 2)):
        expected = CORRUPTIONS[kind].apply(image, CORRUPTIONS[kind].strengths[step - 1], np.random.default_rng(1))
        np.testing.assert_array_equal(damage(image, kind, strength, np.random.default_rng(1)), expected)
    errors = [
        np.abs(damage(image, kind, strength, np.random.default_rng(1)).astype(int) - image).mean()
        for strength in (SLIGHTEST, 0.4, 0.7, 1)
    ]
    assert errors[0] > 0
    assert errors == sorted(errors)


def test_no_damage_is_none():
    image = random_image()
    np.testing.assert_array_equal(damage(image, "none", 0, np.random.default_rng(0)), image)
    with pytest.raises(KeyError):
        damage(image, "fog", 0.5, np.random.default_rng(0))


def test_crops_are_labelled_and_reproducible():
    scene = sample_scenes(1, 0)[0]
    crops, again = crops_of(scene, 160, 200), crops_of(scene, 160, 200)
    np.testing.assert_array_equal(crops.pixels, again.pixels)
    assert crops.pixels.shape == (200, 72, 72, 3)
    assert set(crops.damage) == set(range(len(DAMAGES)))
    assert np.mean(crops.damage == 0) == pytest.approx(0.25, abs=0.1)
    np.testing.assert_array_equal(crops.strength == 0, crops.damage == 0)
    assert crops.strength[crops.damage > 0].min() >= SLIGHTEST
    assert {BACKGROUNDS[i] for i in crops.background} == {scene.background}
    image = render(scene, 160, 160)
    windows = np.lib.stride_tricks.sliding_window_view(image, (72, 72, 3))[:, :, 0]
    untouched = crops.pixels[crops.damage == 0][0]
    assert (windows == untouched).all(axis=(2, 3, 4)).any()


def test_damaged_crops_are_cached(tmp_path):
    crops = damaged_crops(TINY, 1, tmp_path / "new/detail.npz")
    assert len(crops.pixels) == 24
    (file,) = (tmp_path / "new").iterdir()
    before = file.stat().st_mtime_ns
    np.testing.assert_array_equal(damaged_crops(TINY, 1, tmp_path / "new/detail.npz").pixels, crops.pixels)
    assert file.stat().st_mtime_ns == before


def test_structure_trains_and_is_measured(tmp_path):
    network = structure.train_structure(tmp_path, tmp_path / "log", 12, few_steps(structure.SCHEDULE))
    measures = structure.measure_structure(network, tmp_path, 8)
    assert set(measures) == {
        *(f"structure_{name}_accuracy" for name in ("object", "colour", "background")),
        "structure_pose_error",
    }
    scenes = sample_scenes(8, structure.VALIDATION_SEED + 1)
    features = network(structure.to_tensor(render_all(scenes, BASE_PX, BASE_PX))).detach()
    torch.testing.assert_close((features / network.scale).square().mean(), torch.tensor(1.0))


def test_detail_trains_and_is_measured(tmp_path):
    network = detail.train_detail(tmp_path, tmp_path / "log", TINY, few_steps(detail.SCHEDULE))
    measures = detail.measure_detail(network, tmp_path, TINY)
    assert set(measures) == {"detail_damage_accuracy", "detail_background_accuracy", "detail_strength_error"}
    assert network.scale > 0
    assert network.scale != 1


def test_counter_trains_and_is_measured(tmp_path):
    shapes = {(64, 64): 6, (64, 96): 4}
    samples = render_all(sample_scenes(2, 5), 64, 64), [spots(scene)[0] for scene in sample_scenes(2, 5)]
    schedule = few_steps(counting.SCHEDULE, batch=2)
    network = counting.train_counter(tmp_path, tmp_path / "log", samples, shapes, schedule)
    assert count_objects(network, render_all(sample_scenes(2, 1), 64, 64)).shape == (2,)
    entries = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert entries[-1]["step"] == 4
    assert np.isfinite(entries[-1]["loss"])


def test_a_network_learns_its_training_set(tmp_path):
    """A dozen scenes within twelve steps: colours, which are the easiest to tell."""
    schedule = replace(structure.SCHEDULE, steps=12, batch=12, warmup=3, ema=0.5)
    network = structure.train_structure(tmp_path, tmp_path / "log", 12, schedule)
    scenes = sample_scenes(12, structure.TRAIN_SEED)
    quality = structure.structure_quality(network, render_all(scenes, BASE_PX, BASE_PX), scenes)
    assert quality["structure_colour_accuracy"] > 0.6


def test_measures_are_added_to_the_report(tmp_path):
    add_to_report(tmp_path, {"a": 1.0})
    add_to_report(tmp_path, {"b": 2.0, "a": 3.0})
    assert json.loads((tmp_path / "report.json").read_text()) == {"a": 3.0, "b": 2.0}
