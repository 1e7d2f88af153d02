"""A few steps of each stage of the diffusion model's training: sizes, close-ups, captions and targets."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments.scenes.model import LATENT_CHANNELS, build_scheduler, build_tokenizer
from experiments.scenes.renderer.scene import sample_scenes
from experiments.scenes.training import diffusion
from experiments.scenes.training.data import close_ups
from experiments.scenes.training.diffusion import CAPTION_DROPOUT, TextToImage, train_diffusion


def logged(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def short_diffusion(monkeypatch):
    stages = tuple(
        replace(stage, schedule=replace(stage.schedule, steps=1, batch=2, warmup=1)) for stage in diffusion.STAGES
    )
    monkeypatch.setattr(diffusion, "STAGES", stages)


@pytest.fixture
def seen(monkeypatch):
    """The tokens of each batch, for which zeros are predicted."""
    batches = []

    def zeros(self, noisy, timesteps, tokens):
        batches.append(tokens)
        return 0 * noisy + 0 * next(self.unet.parameters()).sum()

    monkeypatch.setattr(TextToImage, "forward", zeros)
    return batches


def test_diffusion_trains_in_stages(tmp_path, short_diffusion, monkeypatch):
    scenes = sample_scenes(3, seed=0) + close_ups(2, seed=0)
    latents = tuple(torch.randn(5, LATENT_CHANNELS, side, side) for side in (8, 16))
    log = tmp_path / "log.jsonl"
    sides = []
    forward = TextToImage.forward
    monkeypatch.setattr(
        TextToImage, "forward", lambda self, noisy, *rest: sides.append(noisy.shape[-1]) or forward(self, noisy, *rest)
    )
    text_encoder, unet = train_diffusion(latents, scenes, build_tokenizer(tmp_path / "tokenizer"), tmp_path, log)
    stages = ["diffusion-half-size", "diffusion", "diffusion-scales", "diffusion-longer"]
    assert [(entry["stage"], entry["step"]) for entry in logged(log)] == [(stage, 1) for stage in stages]
    assert sides == [8, 16, 16, 16]
    assert all(np.isfinite(entry["loss"]) for entry in logged(log))
    assert not text_encoder.training
    assert not unet.training


def test_close_ups_of_a_batch_and_their_captions():
    """Counts over 4,000 examples: the share of close-ups, and of plain captions below the timestep."""
    close = torch.arange(10) == 9
    stage = diffusion.STAGES[2]
    stage = replace(stage, schedule=replace(stage.schedule, batch=4000), close_up_share=0.3, plain_below=250)
    index, times, plain = diffusion.draw_examples(stage, close, 1000, torch.Generator().manual_seed(0))
    assert (index == 9).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert index.unique().tolist() == list(range(10))
    assert times.max().item() == 999
    assert not plain[times >= 250].any()
    assert plain[times < 250].float().mean().item() == pytest.approx(diffusion.PLAIN_SHARE, abs=0.05)
    index, times, plain = diffusion.draw_examples(
        replace(stage, close_up_share=None), close, 1000, torch.Generator().manual_seed(0)
    )
    assert (index == 9).float().mean().item() == pytest.approx(0.1, abs=0.03)
    assert not plain.any()


@pytest.mark.parametrize(("plain_below", "view"), [(0, True), (1001, False)])
def test_a_plain_caption_is_that_of_the_whole_scene(tmp_path, monkeypatch, seen, plain_below, view):
    monkeypatch.setattr(diffusion, "PLAIN_SHARE", 1.0)
    monkeypatch.setattr(diffusion, "CAPTION_DROPOUT", 0.0)
    stage = diffusion.STAGES[2]
    schedule = replace(stage.schedule, steps=1, batch=4, warmup=1)
    stage = replace(stage, schedule=schedule, close_up_share=1.0, plain_below=plain_below)
    monkeypatch.setattr(diffusion, "STAGES", (stage,))
    tokenizer = build_tokenizer(tmp_path / "tokenizer")
    latents = torch.zeros(3, LATENT_CHANNELS, 2, 2)
    scenes = sample_scenes(2, seed=0) + close_ups(1, seed=1)
    train_diffusion((latents, latents), scenes, tokenizer, tmp_path, tmp_path / "log.jsonl")
    whole = replace(scenes[2], zoom=1.0).caption
    expected = f"close up of {whole}" if view else whole
    assert {text.strip() for text in tokenizer.batch_decode(seen[0], skip_special_tokens=True)} == {expected}


def test_diffusion_learns_velocities_and_drops_captions(tmp_path, monkeypatch, seen):
    """For latents of zeros the velocity is noise times sqrt(alpha): a prediction of zeros has the mean alpha as loss.
    For large latents it is the latent times -sqrt(1 - alpha).
    """
    stage = diffusion.STAGES[1]
    stage = replace(stage, schedule=replace(stage.schedule, steps=4, batch=400, warmup=1))
    monkeypatch.setattr(diffusion, "STAGES", (stage,))
    alpha = build_scheduler().alphas_cumprod.mean().item()
    tokenizer = build_tokenizer(tmp_path / "tokenizer")
    for value, expected in ((0.0, alpha), (100.0, 100**2 * (1 - alpha))):
        folder = tmp_path / str(value)
        folder.mkdir()
        latents = torch.full((5, LATENT_CHANNELS, 2, 2), value)
        train_diffusion((latents, latents), sample_scenes(5, seed=0), tokenizer, folder, folder / "log.jsonl")
        assert logged(folder / "log.jsonl")[-1]["loss"] == pytest.approx(expected, rel=0.06)
    lengths = (torch.cat(seen) != tokenizer.pad_token_id).sum(1)
    assert (lengths < 2).float().mean().item() == pytest.approx(CAPTION_DROPOUT, abs=0.025)
