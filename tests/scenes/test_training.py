"""The training loop (learning rates, averaged weights, resuming from a checkpoint), a few steps of the autoencoder."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from experiments.scenes.model import build_autoencoder
from experiments.scenes.renderer.scene import render_all, sample_scenes
from experiments.scenes.training import autoencoder
from experiments.scenes.training.autoencoder import (
    encode,
    psnr,
    to_tensor,
    train_autoencoder,
    training_batch,
    tune_decoder,
)
from experiments.scenes.training.data import rendered
from experiments.scenes.training.loop import TrainingSchedule, run_training, step_generator

SCHEDULE = TrainingSchedule("toy", steps=250, batch=4, learning_rate=0.1, ema=0.9, warmup=10)


class Interrupted(Exception):
    pass


def train_toy(folder, stop_at=None):
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def loss_at(step):
        if step == stop_at:
            raise Interrupted
        x = torch.randn(SCHEDULE.batch, 3, generator=step_generator(SCHEDULE, step))
        return (model(x) - x.sum(1, keepdim=True)).square().mean()

    folder.mkdir(exist_ok=True)
    run_training(SCHEDULE, model, loss_at, folder, folder / "log.jsonl")
    return model


def test_training_converges_and_logs(tmp_path):
    model = train_toy(tmp_path)
    torch.testing.assert_close(model.weight.detach(), torch.ones(1, 3), atol=0.02, rtol=0)
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == list(range(50, 251, 50))
    assert entries[-1]["loss"] < entries[0]["loss"]
    assert not model.training


def test_resumed_training_equals_uninterrupted_training(tmp_path):
    whole = train_toy(tmp_path / "whole")
    for stop_at in (1, 210, 249):  # before the first checkpoint, after it, at the last step
        folder = tmp_path / f"stopped-{stop_at}"
        with pytest.raises(Interrupted):
            train_toy(folder, stop_at)
        assert torch.equal(whole.weight, train_toy(folder).weight)
        assert sorted(path.name for path in folder.iterdir()) == ["log.jsonl", "toy.pt"]


def test_learning_rate_warms_up_and_decays():
    rates = [SCHEDULE.rate(step) for step in range(SCHEDULE.steps + 1)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == rates[10] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0.002)
    assert rates[130] == pytest.approx(0.1 * (0.02 + 0.98 * 0.5))


def test_rendered_sets_are_cached_by_scenes_and_size(tmp_path):
    scenes = sample_scenes(3, seed=0)
    images = rendered(scenes, 16, tmp_path / "new/train.npy")
    np.testing.assert_array_equal(images, render_all(scenes, 16, 16))
    (file,) = (tmp_path / "new").iterdir()
    np.save(file, np.zeros((3, 16, 16, 3), np.uint8))
    assert not rendered(scenes, 16, tmp_path / "new/train.npy").any()  # loaded, not rendered again
    assert rendered(scenes, 8, tmp_path / "new/train.npy").shape == (3, 8, 8, 3)
    assert rendered(scenes, (8, 12), tmp_path / "new/train.npy").shape == (3, 8, 12, 3)


def logged(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


CROPS = TrainingSchedule("crops", steps=1, batch=16, learning_rate=0.0)


def test_autoencoder_batches_are_crops_of_every_set():
    """Sets of constant images of their own grey and size; every other batch is mirrored."""
    sets = [np.full((3, side, side, 3), grey, np.uint8) for side, grey in ((64, 0), (100, 100), (128, 200))]
    batch = training_batch(sets, CROPS, 0)
    assert batch.shape == (16, 3, 64, 64)
    greys = ((batch.amax((1, 2, 3)) + 1) * 127.5).round().int().tolist()
    assert greys == [(0, 100, 200)[i % 3] for i in range(16)]
    ramp = [np.broadcast_to(np.arange(128, dtype=np.uint8)[:, None], (2, 128, 128, 3))]  # brighter to the right
    assert training_batch(ramp, CROPS, 0).diff(dim=3).mean() > 0 > training_batch(ramp, CROPS, 1).diff(dim=3).mean()
    assert torch.equal(training_batch(ramp, CROPS, 7), training_batch(ramp, CROPS, 7))


def test_psnr_is_that_of_the_definition():
    images = render_all(sample_scenes(3, seed=0), 32, 32)
    torch.manual_seed(0)
    vae = build_autoencoder().eval()
    with torch.no_grad():
        restored = vae(to_tensor(images)).sample.clamp(-1, 1)
    found = ((restored + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
    error = np.square(found.astype(float) - images).mean()
    assert psnr(vae, images, batch=2) == pytest.approx(10 * np.log10(255**2 / error), abs=0.01)


def test_autoencoder_trains_and_scales_its_latents(tmp_path, monkeypatch):
    for name in ("NARROW", "SCHEDULE"):
        monkeypatch.setattr(autoencoder, name, replace(getattr(autoencoder, name), steps=2, batch=2, warmup=1))
    passes = [replace(schedule, steps=2, batch=2, warmup=1) for schedule in autoencoder.DECODER]
    monkeypatch.setattr(autoencoder, "DECODER", passes)
    sets = [render_all(sample_scenes(2, seed=side), side, side) for side in (64, 96)]
    vae = train_autoencoder(sets, tmp_path, tmp_path / "log.jsonl")
    entries = logged(tmp_path / "log.jsonl")
    stages = ["autoencoder-8-channels", "autoencoder", "decoder", "decoder-longer", "decoder-last"]
    assert [entry["stage"] for entry in entries] == stages
    assert all(np.isfinite(entry["loss"]) for entry in entries)
    latents = torch.cat([encode(vae, images).flatten() for images in sets])
    assert (latents * vae.config.scaling_factor).std() == pytest.approx(1, abs=0.01)
    again = train_autoencoder(sets, tmp_path, tmp_path / "log.jsonl")
    assert all(torch.equal(a, b) for a, b in zip(vae.parameters(), again.parameters(), strict=True))


def test_decoder_is_tuned_and_nothing_else_moves(tmp_path, monkeypatch):
    """After a few steps it restores the images that it sees better, from the same latents."""
    schedule = replace(autoencoder.DECODER[0], steps=8, batch=2, learning_rate=4e-3, ema=0.0, warmup=1)
    monkeypatch.setattr(autoencoder, "DECODER", (schedule,))
    torch.manual_seed(0)
    vae = build_autoencoder()
    sets = [render_all(sample_scenes(2, seed=0), 64, 64)]
    latents, before = encode(vae, sets[0]), psnr(vae, sets[0])
    tune_decoder(vae, sets, tmp_path, tmp_path / "log.jsonl")
    assert torch.equal(encode(vae, sets[0]), latents)
    assert psnr(vae, sets[0]) > before + 1


def test_decoder_loss_is_the_squared_error_of_clean_and_noisy_latents(monkeypatch):
    torch.manual_seed(0)
    vae, pixels, losses = build_autoencoder(), to_tensor(render_all(sample_scenes(2, seed=0), 64, 64)), {}
    vae.register_to_config(scaling_factor=0.5)
    for noise in (0.0, 3.0):
        monkeypatch.setattr(autoencoder, "LATENT_NOISE", noise)
        generator = torch.Generator().manual_seed(1)
        losses[noise] = autoencoder.decoder_loss(vae, pixels, generator)
        generator = torch.Generator().manual_seed(1)
        strength = noise * torch.rand(2, 1, 1, 1, generator=generator)[1] / 0.5
        with torch.no_grad():
            latents = vae.encode(pixels).latent_dist.mode()
            latents[1] += strength * torch.randn(latents.shape, generator=generator)[1]
            expected = (vae.decode(latents).sample - pixels).square().mean()
        torch.testing.assert_close(losses[noise], expected)
    assert losses[3.0] != losses[0.0]


def test_widening_keeps_what_the_narrow_autoencoder_has_learned():
    """Of twelve means and twelve variances, the first eight of each are the narrow one's; all else stays."""
    narrow, wide = build_autoencoder(8), build_autoencoder(12)
    before, small = {k: v.clone() for k, v in wide.state_dict().items()}, narrow.state_dict()
    autoencoder.widen(narrow, wide)
    kept = [*range(8), *range(12, 20)]
    for name, after in wide.state_dict().items():
        if after.shape == small[name].shape:
            assert torch.equal(after, small[name])
    after = wide.state_dict()["encoder.conv_out.bias"]
    assert torch.equal(after[kept], small["encoder.conv_out.bias"])
    rest = [8, 9, 10, 11, 20, 21, 22, 23]
    assert torch.equal(after[rest], before["encoder.conv_out.bias"][rest])
    mixed = wide.state_dict()["quant_conv.weight"]
    assert torch.equal(mixed[kept][:, kept], small["quant_conv.weight"])
    assert torch.equal(mixed[rest], before["quant_conv.weight"][rest])
    assert torch.equal(wide.state_dict()["decoder.conv_in.weight"][:, :8], small["decoder.conv_in.weight"])
