"""AccDiffusion against its published algorithm as loops, and its parts."""

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor

from baselines.method import Request, Sampler
from baselines.patches.accdiffusion import AccDiffusion
from baselines.patches.attention_maps import cross_attentions
from baselines.patches.demofusion import DemoFusion
from tests.baselines.patches.slow import SIDE, STEPS, latents_of, request_for, slow_method, starts
from tests.tiny import generate, tiny_pipeline, tiny_sdxl_pipeline

LEVEL = 1  # of tiny models: maps of 4x4 at the training size
WORDS = {"ab": [1, 2], "c": [3], "de": [4, 5]}  # and the positions of their tokens
PROMPT = " ".join(WORDS)


# SD 1.5's topology is that of the test of three phases.
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("sd15", "sd21")]


@pytest.fixture(params=[*SLOW, "sdxl"])
def family(request, tmp_path):
    return tiny_sdxl_pipeline(tmp_path) if request.param == "sdxl" else tiny_pipeline(tmp_path, request.param)


@pytest.fixture
def pipe(tmp_path):
    """With attention at the level that is looked at."""
    return tiny_pipeline(tmp_path, "sd15")


@pytest.fixture
def sdxl(tmp_path):
    return tiny_sdxl_pipeline(tmp_path)


class WatchedAttention:
    """Plain attention in place of a pipeline's, whose probabilities at a level are kept."""

    def __init__(self, unet, monkeypatch):
        self.seen, self.layers = [], cross_attentions(unet, LEVEL)
        unet.set_attn_processor(AttnProcessor())
        for layer in self.layers:
            monkeypatch.setattr(layer, "get_attention_scores", self.watched(layer.get_attention_scores))

    def watched(self, plain):
        def scores(*args):
            self.seen.append(plain(*args))
            return self.seen[-1]

        return scores

    def foregrounds(self, rows, columns):
        """Word -> (rows, columns) mask, from the conditional half of the first phase."""
        first = self.seen[: STEPS * len(self.layers)]
        maps = torch.stack([each[len(each) // 2 :].mean(0) for each in first]).mean(0).view(rows, columns, -1)
        found = {word: maps[:, :, tokens].mean(2) for word, tokens in WORDS.items()}
        return {word: (each > each.mean()).numpy() for word, each in found.items()}


def prompts_by_loops(foregrounds, size, coverage):
    """(row, column) of each crop in the grid -> the words that cover enough of it."""
    height, width = size
    tall, wide = min(SIDE, height), min(SIDE, width)
    found = {}
    for top, *_ in starts(height):
        for left, *_ in starts(width):
            kept = []
            for word, mask in foregrounds.items():
                rows, columns = mask.shape
                covered = sum(
                    mask[int((y + 0.5) * rows / height), int((x + 0.5) * columns / width)]
                    for y in range(top, top + tall)
                    for x in range(left, left + wide)
                )
                if covered / (tall * wide) >= coverage:
                    kept.append(word)
            found[top, left] = " ".join(kept)
    return found


def check_against_loops(pipe, sizes, monkeypatch):
    """To 1e-4, with several prompts among the crops."""
    method = AccDiffusion(attention_level=LEVEL, coverage=0.5, crop_guidance_scale=2.0)
    found = latents_of(method, pipe, request_for(sizes, PROMPT), monkeypatch)
    watched, used = WatchedAttention(pipe.unet, monkeypatch), set()

    def prompts_of(size):
        rows, columns = (-(-side // 2) for side in sizes[0])
        prompts = prompts_by_loops(watched.foregrounds(rows, columns), size, 0.5)
        used.update(prompts.values())
        return prompts

    expected = slow_method(pipe, PROMPT, 3, sizes, prompts_of, shuffle=True, crop_guidance=2.0)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert len(used) > 1


def test_equals_the_published_algorithm(family, monkeypatch):
    check_against_loops(family, [(8, 8), (16, 16)], monkeypatch)


def test_three_phases_of_another_aspect_equal_the_published_algorithm(pipe, monkeypatch):
    check_against_loops(pipe, [(5, 8), (10, 16), (16, 24)], monkeypatch)


def test_without_its_components_it_is_demofusion(sdxl):
    method = AccDiffusion(content_prompts=False, shuffle=False)
    assert np.array_equal(generate(method, sdxl), generate(DemoFusion(), sdxl))


def test_every_word_in_every_crop_is_the_whole_prompt(sdxl):
    request = Request([PROMPT, "f g"], [1, 2], 64, 96, Sampler(2, 4.0))
    plain, every = ({"content_prompts": False}, {"coverage": 0.0, "attention_level": LEVEL})
    images = [AccDiffusion(**options, jitter_once=True).generate(sdxl, request) for options in (plain, every)]
    assert np.abs(images[0].astype(int) - images[1]).max() <= 1


def test_every_option_changes_the_image(sdxl):
    request = Request([PROMPT], [1], 64, 32, Sampler(2, 4.0))
    base = {"attention_level": LEVEL, "coverage": 0.5}
    image = AccDiffusion(**base).generate(sdxl, request)
    for change in (
        {"content_prompts": False},
        {"coverage": 0.9},
        {"attention_level": 2},
        {"opening": 1},
        {"shuffle": False},
        {"jitter_once": True},
        {"crop_guidance_scale": 1.5},
    ):
        assert not np.array_equal(AccDiffusion(**(base | change)).generate(sdxl, request), image), change
    same = AccDiffusion(**base, crop_guidance_scale=4.0, opening=0).generate(sdxl, request)
    assert np.array_equal(same, image)


def crop_coordinates(pipe, method, monkeypatch):
    """Of all crops of one image in each step of the last phase, in call order."""
    seen, forward = [], pipe.unet.forward

    def watched(*args, **kwargs):
        seen.append([tuple(row) for row in kwargs["added_cond_kwargs"]["time_ids"][:, 2:4].int().tolist()])
        return forward(*args, **kwargs)

    monkeypatch.setattr(pipe.unet, "forward", watched)
    generate(method, pipe, [1])
    monkeypatch.undo()
    return [each for each in seen if len(each) == 18]


def test_offsets_are_drawn_in_every_step_or_once(sdxl, monkeypatch):
    for once in (False, True):
        steps = crop_coordinates(sdxl, AccDiffusion(jitter_once=once), monkeypatch)
        assert len(steps) == 2
        assert (len({tuple(each) for each in steps}) == 1) == once
        grid = [(top, left) for top in (0, 16, 32) for left in (0, 16, 32)]
        for corners in steps:
            for corner, placed in zip(grid, corners[::2], strict=True):
                assert all(abs(a - b) <= 4 for a, b in zip(corner, placed, strict=True))


def test_prompts_are_encoded_once_for_a_phase(pipe, monkeypatch):
    calls, encode = [], pipe.encode_prompt
    monkeypatch.setattr(pipe, "encode_prompt", lambda *args, **kw: calls.append(args[0]) or encode(*args, **kw))
    method = AccDiffusion(attention_level=LEVEL)
    method.generate(pipe, Request([PROMPT, "f g"], [1, 2], 96, 96, Sampler(1, 4.0)))
    assert len(calls) == 1 + 2
    assert all(len(set(prompts)) == len(prompts) for prompts in calls[1:])


def test_description_names_what_affects_pixels(pipe):
    described = AccDiffusion(attention_level=LEVEL).describe(pipe, 64, 64)
    assert described["coverage"] == 0.3
    assert described["attention_level"] == LEVEL
    without = AccDiffusion(windows=False, attention_level=9).describe(pipe, 64, 64)
    assert not {"coverage", "attention_level", "opening", "content_prompts", "jitter_once"} & set(without)
    assert "shuffle" not in AccDiffusion(dilated=False).describe(pipe, 64, 64)


def test_invalid_options_raise(pipe):
    for options, message in (
        ({"coverage": 1.5}, "coverage must be"),
        ({"opening": -1}, "opening at least 0"),
        ({"attention_level": 3}, "attention_level=3: choose one of 0, 1, 2"),
    ):
        with pytest.raises(ValueError, match=message):
            AccDiffusion(**options).describe(pipe, 64, 64)
