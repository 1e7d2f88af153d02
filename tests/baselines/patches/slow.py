"""DemoFusion and AccDiffusion as published: loops that step every crop and every view by itself, on tiny pipelines."""

import copy
import itertools
import math
from functools import lru_cache

import torch
from torch.nn import functional

from baselines.method import Request, Sampler

W, STEPS, SIDE = 4.0, 2, 8  # guidance, sampling steps, side of a crop


@lru_cache(maxsize=16)
def encoded(pipe, prompt):
    """Of a guidance pair: embeddings, and for SDXL pooled ones."""
    if not hasattr(pipe, "tokenizer_2"):
        cond, uncond = pipe.encode_prompt(prompt, "cpu", 1, True)
        return torch.cat([uncond, cond]), None
    cond, uncond, pooled, no_pooled = pipe.encode_prompt(prompt, do_classifier_free_guidance=True, device="cpu")
    return torch.cat([uncond, cond]), torch.cat([no_pooled, pooled])


def conditions(pipe, prompt, size, corner=(0, 0)):
    """Keyword arguments of a call on a guidance pair for one prompt, for an image of this size in pixels."""
    text, pooled = encoded(pipe, prompt)
    if pooled is None:
        return {"encoder_hidden_states": text}
    added = {"text_embeds": pooled, "time_ids": torch.tensor([[*size, *corner, *size]] * 2)}
    return {"encoder_hidden_states": text, "added_cond_kwargs": added}


def starts(side):
    """(start, touches the low border, touches the high border) of crops at half a side's stride."""
    found = list(range(0, side - SIDE, SIDE // 2)) + [side - SIDE] if side > SIDE else [0]
    return [(start, start == 0, start + SIDE >= side) for start in found]


def offset_of(start, share):
    """Offset of at most an eighth of a crop's side, beyond a border that it touches, never away from it."""
    _, low, high = start
    possible = range(0 if high else -1, (0 if low else 1) + 1)
    return possible[math.floor(share * len(possible))]


class Steps:
    """One scheduler step of a part of a latent, each from a scheduler without history."""

    def __init__(self, pipe, prompt, size, stepped=True):
        self.pipe, self.prompt, self.size, self.stepped = pipe, prompt, size, stepped

    def guided(self, seen, t, corner=(0, 0), prompt=None, w=W):
        pair = self.fresh().scale_model_input(torch.cat([seen] * 2), t)
        prompted = conditions(self.pipe, self.prompt if prompt is None else prompt, self.size, corner)
        uncond, cond = self.pipe.unet(pair, t, **prompted).sample.chunk(2)
        return uncond + w * (cond - uncond)

    def step(self, x, prediction, t):
        return self.fresh().step(prediction, t, x).prev_sample if self.stepped else prediction

    def fresh(self):
        scheduler = copy.deepcopy(self.pipe.scheduler)
        scheduler.set_timesteps(STEPS)
        return scheduler


def blurred(x, s, c):
    sigma, reach = 0.99 * c + 0.01, s - 1
    line = torch.tensor([math.exp(-(i**2) / (2 * sigma**2)) for i in range(-reach, reach + 1)])
    kernel = torch.outer(line, line) / line.sum() ** 2
    soft = functional.conv2d(x.transpose(0, 1), kernel[None, None], padding=reach).transpose(0, 1)
    return (soft - soft.mean()) / soft.std() * x.std() + x.mean()


def slow_local(steps, x, t, generator, prompts, w):
    """Crops stepped by themselves, then averaged; ``prompts``: (row, column) of a crop in the grid -> its prompt."""
    height, width = x.shape[2:]
    rows, columns = starts(height), starts(width)
    shares = torch.rand(len(rows) * len(columns), 2, dtype=torch.float64, generator=generator)
    padded = functional.pad(x, (1, 1, 1, 1))
    total, count = torch.zeros_like(padded), torch.zeros_like(padded)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            down, right = shares[i * len(columns) + j].tolist()
            top, left = row[0] + offset_of(row, down), column[0] + offset_of(column, right)
            tall, wide = min(SIDE, height), min(SIDE, width)
            place = (..., slice(top + 1, top + 1 + tall), slice(left + 1, left + 1 + wide))
            corner = (max(0, top) * 4, max(0, left) * 4)
            prediction = steps.guided(padded[place], t, corner, prompts.get((row[0], column[0])), w)
            total[place] += steps.step(padded[place], prediction, t)
            count[place] += 1
    return (total / count)[..., 1:-1, 1:-1]


def exchanged(views, order):
    """At each channel, row and column, view i gets the value of view order[i]."""
    result = [view.clone() for view in views]
    for c, y, x in itertools.product(*map(range, views[0].shape[1:])):
        for i, view in enumerate(result):
            view[0, c, y, x] = views[order[i][c][y][x]][0, c, y, x]
    return result


def exchanged_back(views, order):
    result = [view.clone() for view in views]
    for c, y, x in itertools.product(*map(range, views[0].shape[1:])):
        for i, view in enumerate(views):
            result[order[i][c][y][x]][0, c, y, x] = view[0, c, y, x]
    return result


def slow_global(steps, x, t, s, c, shuffled_by=None):
    """Views of the blurred latent predict, those of the latent are stepped."""
    height, width = x.shape[2:]
    padded = functional.pad(x, (-width % s, 0, -height % s, 0))
    soft, result = blurred(padded, s, c), torch.zeros_like(padded)
    places = [(..., slice(a, None, s), slice(b, None, s)) for a in range(s) for b in range(s)]
    seen = [soft[place] for place in places]
    if shuffled_by is not None:
        order = torch.rand(s * s, *seen[0].shape[1:], generator=shuffled_by).argsort(0).tolist()
        predictions = exchanged_back([steps.guided(view, t) for view in exchanged(seen, order)], order)
    else:
        predictions = [steps.guided(view, t) for view in seen]
    for place, prediction in zip(places, predictions, strict=True):
        result[place] = steps.step(padded[place], prediction, t)
    return result[..., -height:, -width:]


@torch.no_grad()
def slow_method(pipe, prompt, seed, sizes, prompts_of=None, shuffle=False, crop_guidance=W, stepped=True):
    """Latents of the last phase.

    Args:
        sizes: of the phases, in latent pixels.
        prompts_of: size of a phase -> prompts of `slow_local`.
        stepped: step every crop and view before they are fused; else fuse predictions and step once, for schedulers
            with a history.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = Steps(pipe, prompt, [side * 4 for side in sizes[0]])
    x = torch.randn(1, 4, *sizes[0], generator=generator) * steps.fresh().init_noise_sigma
    own = steps.fresh()
    for t in own.timesteps:
        x = own.step(steps.guided(x, t), t, x).prev_sample
    steps = Steps(pipe, prompt, [side * 4 for side in sizes[-1]], stepped)
    mean, std = x.mean(), x.std()
    for s, size in enumerate(sizes[1:], 2):
        clean = functional.interpolate(x, size, mode="bicubic", align_corners=False)
        noise = torch.randn(4, *size, generator=generator)[None]
        x = steps.fresh().add_noise(clean, noise, steps.fresh().timesteps[:1])
        prompts, own = prompts_of(size) if prompts_of else {}, steps.fresh()
        for t in own.timesteps:
            c = (1 + math.cos(math.pi * (1000 - float(t)) / 1000)) / 2
            path = steps.fresh().add_noise(clean, noise, t[None])
            mixed = (1 - c**3) * x + c**3 * path
            local = slow_local(steps, mixed, t, generator, prompts, crop_guidance)
            whole = slow_global(steps, mixed, t, s, c, generator if shuffle else None)
            x = (1 - c) * local + c * whole
            x = x if stepped else own.step(x, t, mixed).prev_sample
        x = (x - x.mean()) / x.std() * std + mean
    return x


def latents_of(method, pipe, request, monkeypatch):
    """What the method passes to the decoder in the end."""
    seen, decode = [], pipe.vae.decode
    monkeypatch.setattr(pipe.vae, "decode", lambda z, *args, **kwargs: seen.append(z) or decode(z, *args, **kwargs))
    method.generate(pipe, request)
    monkeypatch.undo()
    return seen[-1] * pipe.vae.config.scaling_factor


def request_for(sizes, prompt="a b", seed=3):
    height, width = (side * 4 for side in sizes[-1])
    return Request([prompt], [seed], height, width, Sampler(STEPS, W))
