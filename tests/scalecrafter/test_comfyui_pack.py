"""The folder of the nodes as ComfyUI finds it."""

import importlib.util
import shutil
import sys
from pathlib import Path

import scalecrafter
from scalecrafter import available_settings


def test_the_folder_is_a_node_pack(tmp_path):
    """A copy of it, loaded as ComfyUI loads what is in custom_nodes."""
    source = Path(scalecrafter.__file__).parent / "comfyui"
    folder = shutil.copytree(source, tmp_path / "custom_nodes/scalecrafter")
    spec = importlib.util.spec_from_file_location("custom_nodes_scalecrafter", folder / "__init__.py")
    pack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    assert set(pack.NODE_CLASS_MAPPINGS) == set(pack.NODE_DISPLAY_NAME_MAPPINGS)
    for node in pack.NODE_CLASS_MAPPINGS.values():
        required = node.INPUT_TYPES()["required"]
        assert required["settings"][0] == ["auto", *available_settings()]
        assert node.RETURN_TYPES == ("MODEL",)
        assert callable(getattr(node, node.FUNCTION))


def test_comfyui_is_not_imported():
    assert not any(name.partition(".")[0] == "comfy" for name in sys.modules)
