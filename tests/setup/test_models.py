"""Pipelines from folders as save_pretrained writes them, and every way in which they can be wrong."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler

from experiments.setup.compose import compose_config
from experiments.setup.models import ModelSource, load_pipeline
from experiments.setup.runs import model_source
from scalecrafter.pipeline import model_family
from tests.ldm import save_single_file
from tests.tiny import tiny_vae


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def changed(folder: Path, target: Path, file: str, **values) -> Path:
    """A copy of a pipeline folder with other values in one of its JSON files."""
    shutil.copytree(folder, target)
    path = target / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return target


@pytest.mark.parametrize("family", ["sd15", "sd21", "sdxl"])
def test_families_load_from_folders(save_pipeline, family):
    options = [f"model={family}", f"model.path={save_pipeline(family)}", "model.side=32", "model.dtype=float32"]
    model = load_pipeline(model_source(dict(compose_config(options).model)))
    assert model_family(model.unet) == family
    assert isinstance(model.scheduler, DDIMScheduler)
    assert getattr(model, "safety_checker", None) is None
    parts = [model.unet, model.vae, model.text_encoder]
    assert {part.dtype for part in parts} == {torch.float32}


def test_ddim_replaces_the_scheduler_only_on_request(save_pipeline, tmp_path):
    folder = changed(
        save_pipeline("sd15"),
        tmp_path / "euler",
        "model_index.json",
        scheduler=["diffusers", "EulerDiscreteScheduler"],
    )
    own = load_pipeline(ModelSource("folder", str(folder)))
    ddim = load_pipeline(ModelSource("folder", str(folder), scheduler="ddim"))
    assert isinstance(own.scheduler, EulerDiscreteScheduler)
    assert isinstance(ddim.scheduler, DDIMScheduler)


def test_variant_is_preferred_if_present(save_pipeline, tmp_path):
    """Beside the whole files, or instead of them; a folder without it serves as well."""
    shutil.copytree(save_pipeline("sd15"), tmp_path / "both")
    pipe = load_pipeline(ModelSource("folder", str(save_pipeline("sd15"))))
    pipe.unet.conv_in.bias.data.fill_(3.0)
    pipe.save_pretrained(tmp_path / "variant", variant="fp16")
    pipe.unet.conv_in.bias.data.zero_()
    for file in (tmp_path / "variant").glob("*/*.fp16.safetensors"):
        shutil.copy(file, tmp_path / "both" / file.parent.name / file.name)
    for folder in ("both", "variant"):
        found = load_pipeline(ModelSource("folder", str(tmp_path / folder), variant="fp16"))
        assert found.unet.conv_in.bias.detach().float().unique().tolist() == [3.0]
    load_pipeline(ModelSource("folder", str(save_pipeline("sd15")), variant="fp16"))


def test_replacement_autoencoder(save_pipeline, tmp_path):
    torch.manual_seed(7)
    tiny_vae().save_pretrained(tmp_path / "vae")
    plain = ModelSource("folder", str(save_pipeline("sd15")))
    source = ModelSource("folder", str(save_pipeline("sd15")), vae=str(tmp_path / "vae"))
    assert source.digest() != plain.digest()
    other = load_pipeline(source)
    expected = AutoencoderKL.from_pretrained(tmp_path / "vae").decoder.conv_in.weight
    torch.testing.assert_close(other.vae.decoder.conv_in.weight.float(), expected, atol=1e-2, rtol=0)
    (tmp_path / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="the autoencoder at .*vae is incomplete or damaged"):
        load_pipeline(ModelSource("again", str(save_pipeline("sd15")), vae=str(tmp_path / "vae")))


def test_single_file_loads_the_same_weights(save_pipeline, tmp_path):
    """The original checkpoints' names, written from a pipeline, load into the same weights."""
    folder = save_pipeline("sd15")
    expected = load_pipeline(ModelSource("folder", str(folder), dtype="float32"))
    save_single_file(expected, tmp_path / "model.safetensors")
    source = ModelSource("folder", str(tmp_path / "model.safetensors"), config=str(folder), dtype="float32")
    found = load_pipeline(source)
    for part in ("unet", "vae", "text_encoder"):
        weights = getattr(found, part).state_dict()
        for name, value in getattr(expected, part).state_dict().items():
            assert torch.equal(weights[name], value), name
    assert source.digest() != ModelSource("folder", str(folder)).digest()


def test_a_single_file_needs_no_more_than_the_configuration(save_pipeline, tmp_path):
    """Of the pipeline whose architecture it has: nothing else of it is fetched."""
    folder = save_pipeline("sd15")
    expected = load_pipeline(ModelSource("folder", str(folder), dtype="float32"))
    save_single_file(expected, tmp_path / "model.safetensors")
    config = shutil.copytree(folder, tmp_path / "config", ignore=shutil.ignore_patterns("*.safetensors"))
    source = ModelSource("folder", str(tmp_path / "model.safetensors"), config=str(config), dtype="float32")
    assert torch.equal(load_pipeline(source).unet.conv_in.weight, expected.unet.conv_in.weight)
    remote = ModelSource("sd15", str(tmp_path / "model.safetensors"), id="a/b", revision="c", variant="fp16")
    assert remote.remote_config().wanted == ["*.json", "*.txt"]


def test_missing_model_names_the_download_command(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name in ("sd15", "sd21", "sdxl"):
        source = model_source(dict(compose_config([f"model={name}"]).model))
        with pytest.raises(FileNotFoundError) as caught:
            load_pipeline(source)
        message = str(caught.value)
        assert "\n" not in message
        for part in (source.id, source.revision, "hf download", "*.fp16.safetensors", "model.path=DIR"):
            assert part in message


def test_wrong_or_damaged_models_raise(save_pipeline, tmp_path):
    sd15 = save_pipeline("sd15")
    velocity = changed(
        sd15, tmp_path / "v", "scheduler/scheduler_config.json", prediction_type="v_prediction", clip_sample=False
    )
    (tmp_path / "model.ckpt").write_bytes(b"x")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    shutil.copytree(sd15, tmp_path / "partial")
    (tmp_path / "partial/unet/diffusion_pytorch_model.safetensors").unlink()
    upscaler = changed(sd15, tmp_path / "up", "model_index.json", _class_name="StableDiffusionUpscalePipeline")
    remote = changed(sd15, tmp_path / "remote", "model_index.json", _class_name=["pipeline", "MyPipeline"])
    for source, error, message in [
        (ModelSource("sd15", str(velocity), prediction="epsilon"), ValueError, "predicts v_prediction, but sd15 is"),
        (ModelSource("sd15", str(sd15), side=512), ValueError, "trained at 32x32, but sd15 is trained at 512x512"),
        (ModelSource("a", str(tmp_path / "model.ckpt")), ValueError, "is a pickle, which can execute arbitrary code"),
        (ModelSource("a", str(tmp_path / "model.safetensors")), ValueError, "single file: give model.config"),
        (
            ModelSource("a", str(tmp_path / "model.safetensors"), config=str(sd15)),
            ValueError,
            "does not fit the architecture of",
        ),
        (ModelSource("a", str(tmp_path / "partial")), ValueError, "partial is incomplete or damaged"),
        (ModelSource("a", str(upscaler)), ValueError, "holds a StableDiffusionUpscalePipeline: text-to-image needs"),
        (ModelSource("a", str(remote)), ValueError, "holds a .*MyPipeline.*: text-to-image needs"),
        (ModelSource("a", str(tmp_path / "nowhere")), FileNotFoundError, "no pipeline folder at"),
    ]:
        with pytest.raises(error, match=message) as caught:
            load_pipeline(source)
        assert "\n" not in str(caught.value)
    for options, message in [
        ({"dtype": "int8"}, "model.dtype must be auto, float32"),
        ({"scheduler": "plms"}, "model.scheduler is ddim or null"),
    ]:
        with pytest.raises(ValueError, match=message):
            ModelSource("a", str(sd15), **options)
    with pytest.raises(ValueError, match="model.path is missing"):
        load_pipeline(ModelSource("a"))
