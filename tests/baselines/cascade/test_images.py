"""Images between a cascade's stages: enlarged, decoded and encoded."""

import torch
from torch.nn import functional

from baselines.cascade.images import bicubic, encode, enlarged_images, nearest, pillow_bicubic
from tests.baselines.cascade import slow
from tests.tiny import tiny_sdxl_pipeline


def test_images_between_sizes_are_enlarged_as_named(pipe):
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 3 - 1.5
    assert torch.equal(nearest(images, (16, 24))[0, 0, ::2, ::3], images[0, 0].clamp(-1, 1))
    torch.testing.assert_close(pillow_bicubic(images[:1], (20, 20)), slow.pillow_enlarged(images[:1], 20).float())
    flat = torch.full((1, 3, 8, 8), 0.5)
    for enlarge in (bicubic, nearest, pillow_bicubic):
        torch.testing.assert_close(enlarge(flat, (12, 20)), torch.full((1, 3, 12, 20), 0.5))


@torch.no_grad()
def test_each_image_is_encoded_with_its_own_noise(pipe):
    """As the autoencoder's own sample and mode, with the scaling and normalisation of latents."""
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    vae, factor = pipe.vae, pipe.vae.config.scaling_factor
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    found = enlarged_images(pipe, latents, (64, 64), bicubic, generators)
    for index, seed in enumerate((5, 6)):
        image = vae.decode(latents[index : index + 1] / factor).sample
        larger = functional.interpolate(image, (64, 64), mode="bicubic", align_corners=False)
        expected = vae.encode(larger).latent_dist.sample(torch.Generator().manual_seed(seed)) * factor
        torch.testing.assert_close(found[index : index + 1], expected, atol=1e-5, rtol=1e-4)
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    plain = vae.encode(images).latent_dist.mode() * factor
    torch.testing.assert_close(encode(pipe, images, None), plain)
    pipe.vae.register_to_config(latents_mean=[0.1, 0.2, 0.3, 0.4], latents_std=[2.0, 3.0, 4.0, 5.0])
    mean, deviation = (torch.tensor(pipe.vae.config[k]).view(1, 4, 1, 1) for k in ("latents_mean", "latents_std"))
    torch.testing.assert_close(encode(pipe, images, None), (plain / factor - mean) / deviation * factor)
    again = enlarged_images(pipe, encode(pipe, images, None), (32, 32), lambda image, size: image, None)
    torch.testing.assert_close(again, encode(pipe, vae.decode(plain / factor).sample, None), atol=1e-4, rtol=1e-4)


def test_autoencoder_that_overflows_is_float32_for_a_while(tmp_path):
    pipe = tiny_sdxl_pipeline(tmp_path)
    pipe.vae.to(torch.float16)
    pipe.vae.register_to_config(force_upcast=True)
    before = {key: value.clone() for key, value in pipe.vae.state_dict().items()}
    seen = []
    pipe.vae.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    with torch.no_grad():
        encode(pipe, torch.zeros(1, 3, 32, 32), None)
    assert seen == [torch.float32]
    assert all(torch.equal(value, before[key]) for key, value in pipe.vae.state_dict().items())
