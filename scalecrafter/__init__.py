"""ScaleCrafter (He et al., ICLR 2024): images far above the training resolution from a pretrained diffusion model.

import scalecrafter
with scalecrafter.enable(pipe, height=2048, width=2048):
    image = pipe(prompt, height=2048, width=2048).images[0]
"""

from scalecrafter.disperse import disperse_kernel, dispersion_transform
from scalecrafter.enable import Handle, enable
from scalecrafter.freeu import FreeU
from scalecrafter.guidance import noise_damped
from scalecrafter.redilate import redilated_conv2d
from scalecrafter.settings import Settings, available_settings, load_settings

__all__ = [
    "FreeU",
    "Handle",
    "Settings",
    "available_settings",
    "disperse_kernel",
    "dispersion_transform",
    "enable",
    "load_settings",
    "noise_damped",
    "redilated_conv2d",
]
