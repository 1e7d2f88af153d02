"""The node: which settings a ComfyUI model is patched with."""

from __future__ import annotations

from typing import Any

from scalecrafter.auto import family_tables, settings_between
from scalecrafter.comfyui.patch import patched
from scalecrafter.pipeline import FAMILIES
from scalecrafter.settings import Settings, available_settings, from_text

TRAINING_PX = {"sd15": 512, "sd21": 512, "sdxl": 1024}  # along each side


def family_of(model: Any) -> str | None:
    """sd15, sd21 or sdxl by the configuration of a ComfyUI model's U-Net, or None if it is another model."""
    config = model.model.model_config.unet_config
    return FAMILIES.get((config.get("context_dim"), len(config.get("channel_mult", ()))))


def settings_for(model: Any, name: str, text: str, size: tuple[int, int], training_px: int) -> Settings:
    """Those in ``text`` if it is not empty, those with this name, or for "auto" by `settings_between`.

    Args:
        model: ComfyUI's ``ModelPatcher``.
        size: (height, width) in pixels.
        training_px: side that the model was trained at, for "auto"; 0: that of its family.

    Raises:
        ValueError: settings that do not exist or are no settings, or "auto" for an unknown model.
    """
    if text.strip():
        return from_text(text, "the settings in the node")
    if name != "auto":
        return Settings.load(name)
    family = family_of(model)
    if family is None:
        raise ValueError(
            "there are no settings for this model, which is not shaped like SD 1.x, SD 2.x or SDXL: write settings "
            "into the node"
        )
    side = training_px or TRAINING_PX[family]
    return settings_between(family_tables(family), (size[0] / side, size[1] / side))


class ScaleCrafter:
    """Samples far above the training size; everything else in a workflow stays as it is."""

    DESCRIPTION = "Sample far above the training size of SD 1.x, SD 2.x or SDXL by re-dilating the U-Net."
    CATEGORY = "model_patches/unet"
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        side = {"default": 2048, "min": 64, "max": 16384, "step": 8, "tooltip": "of the image, in pixels"}
        names = ["auto", *available_settings()]
        text = {"default": "", "multiline": True, "tooltip": "settings of your own, if it is not empty"}
        trained = "side of the images that the model was trained on; 0: 512, for SDXL 1024 (SD 2.1-768 needs 768)"
        return {
            "required": {
                "model": ("MODEL",),
                "width": ("INT", side),
                "height": ("INT", side),
                "settings": (names, {"default": "auto", "tooltip": "auto chooses by model and size"}),
            },
            "optional": {
                "yaml": ("STRING", text),
                "training_size": ("INT", {"default": 0, "min": 0, "max": 4096, "step": 8, "tooltip": trained}),
            },
        }

    def patch(
        self, model: Any, width: int, height: int, settings: str, yaml: str = "", training_size: int = 0
    ) -> tuple[Any]:
        """What the node does.

        Args:
            model: a ``ModelPatcher`` of SD 1.x, SD 2.x or SDXL.
            width: of the image, in pixels.
            height: of the image, in pixels. Larger latents are an error when they are sampled.
            settings: "auto", by the model's family and the size, or a name of `available_settings`.
            yaml: settings as text, used instead if it is not empty.
            training_size: side of the training images in pixels, for "auto"; 0 stands for 512, and 1024 for SDXL.

        Returns:
            The patched model alone, as ComfyUI takes outputs.

        Raises:
            ValueError: settings that do not exist, are none or do not fit the model; "auto" for an unknown model; a
                model without a U-Net, or that is patched already.
        """
        size = height, width
        return (patched(model, settings_for(model, settings, yaml, size, training_size), size),)


NODE_CLASS_MAPPINGS = {"ScaleCrafter": ScaleCrafter}
NODE_DISPLAY_NAME_MAPPINGS = {"ScaleCrafter": "ScaleCrafter"}
