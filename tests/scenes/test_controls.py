"""Control images: real scenes with the prompted factors, disjoint from every reference, corrupted as they say."""

import numpy as np
import pytest

from baselines.method import Request, Sampler
from eval.corruptions import CORRUPTIONS
from experiments.scenes.controls import RealScenes
from experiments.scenes.renderer.scene import render, sample_scenes
from experiments.scenes.scene_features import SceneFeatures

SCENES = sample_scenes(6, 1)
REQUEST = Request([scene.caption for scene in SCENES], list(range(6)), 96, 128, Sampler())


def test_images_show_what_was_prompted_and_are_no_reference_images():
    images = RealScenes().generate(None, REQUEST)
    assert images.shape == (6, 96, 128, 3)
    seen = SceneFeatures().predict(images)
    for factor in ("object", "colour", "background"):
        assert seen[factor] == [getattr(scene, factor) for scene in SCENES]
    assert all((image != render(scene, 96, 128)).any() for image, scene in zip(images, SCENES, strict=True))
    alone = RealScenes().generate(None, Request(REQUEST.prompts[3:4], REQUEST.seeds[3:4], 96, 128, Sampler()))
    assert np.array_equal(alone[0], images[3])


def test_every_corruption_changes_every_image():
    plain = RealScenes().generate(None, REQUEST)
    identities = [RealScenes().describe(None, 96, 128)]
    for name in CORRUPTIONS:
        corrupted = RealScenes(name).generate(None, REQUEST)
        assert corrupted.shape == plain.shape
        assert all((a != b).any() for a, b in zip(corrupted, plain, strict=True))
        identities.append(RealScenes(name).describe(None, 96, 128))
    assert len({str(identity) for identity in identities}) == len(CORRUPTIONS) + 1


def test_other_prompts_and_unknown_corruptions_are_refused():
    with pytest.raises(ValueError, match="'a cat' is none: use prompts=scenes"):
        RealScenes().generate(None, Request(["a cat"], [0], 64, 64, Sampler()))
    for options in ({"corruption": "fog"}, {"corruption": "blur", "step": 5}):
        with pytest.raises(ValueError, match="corruption is null or one of blur"):
            RealScenes(**options)
