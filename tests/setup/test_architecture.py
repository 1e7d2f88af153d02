"""Pipelines without weights have the sizes of the real ones, and a model's own folder comes first."""

import json
import shutil

import pytest
import torch

from experiments.setup.architecture import load_architecture, read_architecture
from experiments.setup.compose import compose_config
from experiments.setup.models import ModelSource, load_pipeline
from experiments.setup.runs import model_source
from scalecrafter import Settings, available_settings
from scalecrafter.convolutions import find_convolutions
from scalecrafter.pipeline import model_family

# Parameters of the published checkpoints.
PARAMETERS = {
    "sd15": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
    "sd21": {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840},
    "sdxl": {
        "unet": 2_567_463_684,
        "vae": 83_653_863,
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
    },
}


def source_of(*overrides):
    return model_source(dict(compose_config(list(overrides)).model))


@pytest.mark.parametrize("family", PARAMETERS)
def test_parameter_counts_match_the_published_models(family):
    model = load_architecture(source_of(f"model={family}", "model.dtype=float32"))
    assert model_family(model.unet) == family
    for part, expected in PARAMETERS[family].items():
        assert sum(parameter.numel() for parameter in getattr(model, part).parameters()) == expected


@pytest.mark.parametrize("family", PARAMETERS)
def test_shipped_settings_fit_the_true_unet(family):
    unet = load_architecture(source_of(f"model={family}", "model.dtype=float32")).unet
    for name in available_settings():
        if name.startswith(family):
            settings = Settings.load(name)
            assert find_convolutions(unet, {**settings.dilation, **settings.noise_damped_dilation})


def test_local_folder_takes_precedence_over_shipped_architecture(save_pipeline):
    shape = load_architecture(ModelSource("sd15", str(save_pipeline("sd15"))))
    true = load_pipeline(ModelSource("sd15", str(save_pipeline("sd15"))))
    assert type(shape) is type(true)
    assert type(shape.scheduler) is type(true.scheduler)
    assert dict(shape.unet.config)["block_out_channels"] == true.unet.config.block_out_channels
    sizes = [[p.shape for p in each.unet.parameters()] for each in (shape, true)]
    assert sizes[0] == sizes[1]


def test_tensor_sizes_follow_the_dtype(save_pipeline):
    folder = str(save_pipeline("sdxl"))
    for dtype, size in (("float32", 4), ("float16", 2), ("bfloat16", 2)):
        pipe = load_architecture(ModelSource("sdxl", folder, dtype=dtype))
        assert {p.itemsize for p in pipe.unet.parameters()} == {size}
        assert {p.itemsize for p in pipe.text_encoder_2.parameters()} == {size}
    overflows = load_architecture(ModelSource("sdxl", folder, dtype="float16"))
    assert overflows.vae.dtype == torch.float32  # as the pipeline decodes
    assert overflows.unet.dtype == torch.bfloat16
    sd15 = load_architecture(ModelSource("sd15", str(save_pipeline("sd15")), dtype="float16"))
    assert sd15.vae.dtype == torch.bfloat16
    assert read_architecture(source_of("model=sdxl"))["vae"].get("force_upcast", True)


def test_unknown_incomplete_or_unsupported_models_raise(save_pipeline, tmp_path):
    with pytest.raises(FileNotFoundError, match="no pipeline folder at /nowhere: .*only sd15, sd21, sdxl are known"):
        load_architecture(ModelSource("mine", "/nowhere"))
    with pytest.raises(ValueError, match=r"model.path is missing: give the folder of a pipeline"):
        load_architecture(ModelSource("folder"))
    (tmp_path / "one.safetensors").touch()
    with pytest.raises(ValueError, match=r"one.safetensors is a single file: give model.config"):
        load_architecture(ModelSource("folder", str(tmp_path / "one.safetensors")))
    copy = shutil.copytree(save_pipeline("sd15"), tmp_path / "copy")
    (copy / "vae/config.json").unlink()
    with pytest.raises(ValueError, match="copy is incomplete or damaged"):
        load_architecture(ModelSource("mine", str(copy)))
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(index | {"_class_name": "FluxPipeline"}))
    shutil.copy(save_pipeline("sd15") / "vae/config.json", copy / "vae/config.json")
    with pytest.raises(ValueError, match="a FluxPipeline: text-to-image needs"):
        load_architecture(ModelSource("other", str(copy)))
    (copy / "model_index.json").write_text(json.dumps(index | {"_class_name": ["pipeline", "MyPipeline"]}))
    with pytest.raises(ValueError, match="holds a .*MyPipeline.*: text-to-image needs"):
        load_architecture(ModelSource("remote", str(copy)))
    with pytest.raises(ValueError, match="trained at 32x32, but sd15 is trained at 512x512"):
        load_architecture(ModelSource("sd15", str(save_pipeline("sd15")), side=512))
