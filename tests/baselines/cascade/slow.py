"""The common part of explicit forms: guided sampling written out for one image, with diffusers' own scheduler step."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

W, STEPS = 4.0, 5


def precise(pipe):
    """The pipeline in float64, where only the formulas matter."""
    pipe.to(torch.float64)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def embed(pipe, prompt="a b"):
    cond, uncond = pipe.encode_prompt(prompt, "cpu", 1, True)
    return torch.cat([uncond, cond])


def scheduler_of(pipe, steps=STEPS):
    own = type(pipe.scheduler).from_config(pipe.scheduler.config)
    own.set_timesteps(steps)
    return own


def noise_of(generator, *size, channels=4):
    return torch.randn(1, channels, *size, generator=generator, dtype=torch.float64)


def guided(pipe, x, t, text, w):
    uncond, cond = pipe.unet(torch.cat([x] * 2), t, text).sample.chunk(2)
    return uncond + w * (cond - uncond)


def clean_of(scheduler, x, e, t):
    alpha = float(scheduler.alphas_cumprod[t])
    return (x - (1 - alpha) ** 0.5 * e) / alpha**0.5


def noised(scheduler, z, n, t):
    alpha = float(scheduler.alphas_cumprod[t])
    return alpha**0.5 * z + (1 - alpha) ** 0.5 * n


def sample(pipe, scheduler, x, timesteps, text, w=W):
    """(latents, last clean estimate) after DDIM steps."""
    clean = None
    for t in timesteps:
        e = guided(pipe, x, t, text, w)
        clean = clean_of(scheduler, x, e, t)
        x = scheduler.step(e, t, x).prev_sample
    return x, clean


def decode(pipe, z):
    return pipe.vae.decode(z / pipe.vae.config.scaling_factor).sample


def encode(pipe, image, generator=None):
    distribution = pipe.vae.encode(image).latent_dist
    z = distribution.mode() if generator is None else distribution.sample(generator)
    return z * pipe.vae.config.scaling_factor


def pillow_enlarged(image, size):
    """One image in [-1, 1] through Pillow's filter, channel by channel, without rounding."""
    channels = [
        Image.fromarray(channel.numpy()).resize((size, size), Image.Resampling.BICUBIC)
        for channel in image[0].float().clamp(-1, 1)
    ]
    return torch.from_numpy(np.stack([np.asarray(channel) for channel in channels])).clamp(-1, 1)[None].double()
