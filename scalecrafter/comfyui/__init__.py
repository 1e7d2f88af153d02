"""Nodes for ComfyUI: the method on its models of Stable Diffusion 1.x, 2.x and XL.

In goes a MODEL, out comes the same one patched. This folder, linked or copied into ComfyUI's ``custom_nodes``, is the
node pack; the code is that of the installed package. Nothing here imports ComfyUI before an image is sampled.
"""

from scalecrafter.comfyui.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
