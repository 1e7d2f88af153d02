"""ScaleCrafter (He et al., ICLR 2024): sampling far above the training resolution of a pretrained diffusion model.

In comes a diffusers pipeline with a UNet2DConditionModel; out comes the same pipeline, sampling at larger sizes than
it was trained for inside the context and unchanged after it:

    with scalecrafter.enable(pipe):
        image = pipe(prompt, height=2048, width=2048).images[0]
"""

from scalecrafter.auto import auto_settings
from scalecrafter.disperse import disperse_kernel, dispersion_transform
from scalecrafter.enable import active, disable, enable
from scalecrafter.freeu import FreeU
from scalecrafter.guidance import noise_damped
from scalecrafter.handle import Handle
from scalecrafter.redilate import redilated_conv2d
from scalecrafter.settings import Settings, available_settings

__version__ = "0.1.0"

__all__ = [
    "FreeU",
    "Handle",
    "Settings",
    "active",
    "auto_settings",
    "available_settings",
    "disable",
    "disperse_kernel",
    "dispersion_transform",
    "enable",
    "noise_damped",
    "redilated_conv2d",
]
