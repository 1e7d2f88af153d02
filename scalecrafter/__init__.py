"""ScaleCrafter (He et al., ICLR 2024): images far above the training resolution from a pretrained diffusion model.

import scalecrafter
with scalecrafter.enable(pipe, height=2048, width=2048):
    image = pipe(prompt, height=2048, width=2048).images[0]
"""

from scalecrafter.enable import Handle, enable
from scalecrafter.method import Method, Request, Sampler, ScaleCrafter, UNetMethod
from scalecrafter.redilate import redilated_conv2d
from scalecrafter.settings import Settings, available_settings

__all__ = [
    "Handle",
    "Method",
    "Request",
    "Sampler",
    "ScaleCrafter",
    "Settings",
    "UNetMethod",
    "available_settings",
    "enable",
    "redilated_conv2d",
]
