"""Every option of the configuration, by what it changes: images, or what comes after them."""

from experiments.setup.models import resolve_dtype

DAMPED = ["scalecrafter.noise_damped_tau=40", "scalecrafter.noise_damped_dilation={down_blocks.0: 3, up_blocks.3: 3}"]
DISPERSED = ["scalecrafter.dispersed=[mid_block]", "scalecrafter.dispersed_tau=40"]
SYNC = ["method=syncdiffusion", "syncdiffusion.weight=500"]
UPSCALED = ["method=upscale_sd", "upscale_sd.model=@UPSCALER", "upscale_sd.steps=2"]
WINDOWS = ["method=multidiffusion", "multidiffusion.stride=4"]

# Option (and when) -> (what it needs to act, another value): those that change images, and those that do not.
CHANGES = {
    "model.path": ([], "model.path=@OTHER_WEIGHTS"),
    "model.dtype": ([], "model.dtype=float16"),
    "model.scheduler": (["model.path=@EULER"], "model.scheduler=ddim"),
    "model.vae": ([], "model.vae=@OTHER_VAE"),
    "model.tiled_above": (["resolution=x4", "resolution.scale_width=17", "method=direct"], "model.tiled_above=64"),
    "model.steps": (["sampler.steps=${model.steps}"], "model.steps=3"),
    "model.guidance_scale": ([], "model.guidance_scale=3"),
    "model.distance": (SYNC, "model.distance={_target_: tests.setup.test_identity.Brightness}"),
    "model.window_stride": (["method=multidiffusion"], "model.window_stride=4"),
    "model.sync_steps": (SYNC, "model.sync_steps=1"),
    "model.sync_weight": (SYNC[:1], "model.sync_weight=500"),
    "method.eta": (["sampler=paper"], "method.eta=0.5"),
    "resolution.scale_height": ([], "resolution.scale_height=3"),
    "resolution.scale_width": ([], "resolution.scale_width=3"),
    "sampler.steps": ([], "sampler.steps=3"),
    "sampler.guidance_scale": ([], "sampler.guidance_scale=3"),
    "sampler.eta": ([], "sampler.eta=0.5"),
    "sampler.scheduler": ([], "sampler.scheduler=euler"),
    "sampler.negative_prompt": ([], "sampler.negative_prompt=blurry"),
    "sampler.freeu": ([], "sampler.freeu={b1: 1.5, b2: 1.6, s1: 0.5, s2: 0.2}"),
    "sampler.size_condition": (["model.path=@SDXL", "method=direct"], "sampler.size_condition=base"),
    "method.published": (["method=direct", "sampler=published"], "method.published={any: {scheduler: euler}}"),
    "prompts.source": ([], "prompts=file prompts.path=@PROMPTS"),
    "prompts.path": (["prompts=file", "prompts.path=@PROMPTS"], "prompts.path=@OTHER_PROMPTS"),
    "prompts.seed": ([], "prompts.seed=7"),
    "seed": ([], "seed=1"),
    "scalecrafter.settings": ([], "scalecrafter.settings=sdxl_x4"),
    "model.settings": (["scalecrafter.settings=auto", "model.settings={4: sd15_x4}"], "model.settings={4: sdxl_x4}"),
    "scalecrafter.radius": ([], "scalecrafter.radius=3"),
    "scalecrafter.tau": ([], "scalecrafter.tau=20"),
    "scalecrafter.progressive": (["scalecrafter.radius=4"], "scalecrafter.progressive=true"),
    "scalecrafter.dilation": ([], "scalecrafter.dilation={mid_block: 3}"),
    "scalecrafter.noise_damped_tau": (DAMPED[1:], "scalecrafter.noise_damped_tau=30"),
    "scalecrafter.noise_damped_dilation": (DAMPED[:1], "scalecrafter.noise_damped_dilation={mid_block: 3}"),
    "scalecrafter.dispersed": (DISPERSED[1:], "scalecrafter.dispersed=[mid_block]"),
    "scalecrafter.dispersed_tau": (DISPERSED, "scalecrafter.dispersed_tau=20"),
    "scalecrafter.dispersed_size": (DISPERSED, "scalecrafter.dispersed_size=7"),
    "scalecrafter.dispersion_eta": (DISPERSED, "scalecrafter.dispersion_eta=5"),
    "scalecrafter.freeu": ([], "scalecrafter.freeu={b1: 1.5, b2: 1.6, s1: 0.5, s2: 0.2}"),
    "multidiffusion.stride": (WINDOWS, "multidiffusion.stride=8"),
    "multidiffusion.circular": (WINDOWS, "multidiffusion.circular=true"),
    "multidiffusion.crop_coordinates": ([*WINDOWS, "model.path=@SDXL"], "multidiffusion.crop_coordinates=true"),
    "syncdiffusion.weight": (SYNC, "syncdiffusion.weight=50"),
    "syncdiffusion.decay": (SYNC, "syncdiffusion.decay=0.1"),
    "syncdiffusion.sync_steps": (SYNC, "syncdiffusion.sync_steps=1"),
    "syncdiffusion.anchor": (SYNC, "syncdiffusion.anchor=first"),
    "upscale_sd.model": (UPSCALED, "upscale_sd.model=@OTHER_UPSCALER"),
    "upscale_sd.steps": (UPSCALED, "upscale_sd.steps=3"),
    "upscale_sd.guidance_scale": (UPSCALED, "upscale_sd.guidance_scale=2"),
    "upscale_sd.noise_level": (UPSCALED, "upscale_sd.noise_level=90"),
}
KEEPS = {
    "model.path": ([], "model.path=@SAME_WEIGHTS"),
    "model.dtype": ([f"model.dtype={resolve_dtype('auto')}"], "model.dtype=auto"),
    "model.scheduler": ([], "model.scheduler=ddim"),
    "model.prediction": ([], "model.prediction=epsilon"),
    "model.side": ([], "model.side=32"),
    "model.tiled_above": ([], "model.tiled_above=1"),
    "prompts.limit": ([], "prompts.limit=2"),
    "sampler.scheduler": ([], "sampler.scheduler=ddim"),
    "sampler.negative_prompt": (["sampler.guidance_scale=1"], "sampler.negative_prompt=blurry"),
    "sampler.size_condition": ([], "sampler.size_condition=base"),
    "method.published": (["method=direct"], "method.published={any: {scheduler: euler}}"),
    "resolution.images": (["prompts.limit=${resolution.images}", "resolution.images=1"], "resolution.images=2"),
    "batch_size": ([], "batch_size=1"),
    "shard": ([], "shard=0/1"),
    "locks": ([], "locks=false"),
    "verify": ([], "verify=true"),
    "paths.results": ([], "paths.results=elsewhere"),
    "multidiffusion.window_batch": (WINDOWS, "multidiffusion.window_batch=2"),
    "syncdiffusion.recompute": (SYNC, "syncdiffusion.recompute=true"),
    "multidiffusion.crop_coordinates": (WINDOWS, "multidiffusion.crop_coordinates=true"),
    "upscale_sd.model": (UPSCALED, "upscale_sd.model=@SAME_UPSCALER"),
    "scalecrafter.tau, of another method": (["method=direct"], "scalecrafter.tau=20"),
    "multidiffusion.stride, of another method": (["method=attention_scaling"], "multidiffusion.stride=4"),
    "syncdiffusion.weight, of another method": (WINDOWS, "syncdiffusion.weight=500"),
    "scalecrafter.dispersed_tau": (["scalecrafter.tau=40", *DISPERSED], "scalecrafter.dispersed_tau=50"),
    "scalecrafter.dispersed_size": ([], "scalecrafter.dispersed_size=7"),
    "scalecrafter.dispersion_eta": ([], "scalecrafter.dispersion_eta=5"),
    "scalecrafter.progressive": (["scalecrafter.tau=0"], "scalecrafter.progressive=true"),
    "scalecrafter.noise_damped_dilation": (
        ["scalecrafter.noise_damped_tau=0"],
        "scalecrafter.noise_damped_dilation={mid_block: 3}",
    ),
}
# What comes after sampling, all at once.
AFTERWARDS = {
    "metrics.extractor": "metrics=inception",
    "metrics.weights": "metrics.weights=file",
    "metrics.resize": "metrics.resize=legacy",
    "metrics.reference": "metrics.reference=folder",
    "metrics.reference_count": "metrics.reference_count=99",
    "metrics.reference_seed": "metrics.reference_seed=99",
    "metrics.minimum_side": "metrics.minimum_side=99",
    "metrics.reference_minimum": "metrics.reference_minimum=9",
    "metrics.crops": "metrics.crops=null",
    "metrics.also": "metrics.also=[precision_recall]",
    "metrics.repetition": "metrics.repetition=null",
    "logger.name": "logger.name=wandb",
    "logger.project": "logger.project=other",
}
# Names, what names are made of, and what says where a model is from: its digest tells the rest.
NAMES = {"model.name", "method.name", "resolution.name", "model.id", "model.revision", "model.variant", "model.config"}
NAMES |= {"method.object", "paths.runs"}
OPEN = {"model.distance", "model.settings", "method.object", "method.published"}  # whose keys are not fixed
NAMES |= {f"experiment.{key}" for key in ("name", "claim", "expected", "prompts", "plot", "skip")}
