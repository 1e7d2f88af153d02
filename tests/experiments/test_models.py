"""Pipelines from folders as save_pretrained writes them, and every way in which they can be wrong."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler

from experiments.setup.config import compose_config, model_source
from experiments.setup.models import ModelSource, load_model
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
def test_every_family_loads_from_a_folder(save_pipeline, family):
    options = [f"model={family}", f"model.path={save_pipeline(family)}", "model.side=32", "model.dtype=float32"]
    model = load_model(model_source(dict(compose_config(options).model)))
    assert model_family(model.pipe.unet) == family == model.name
    assert isinstance(model.pipe.scheduler, DDIMScheduler)
    assert getattr(model.pipe, "safety_checker", None) is None
    parts = [model.pipe.unet, model.pipe.vae, model.pipe.text_encoder]
    assert {part.dtype for part in parts} == {torch.float32}


def test_the_pipelines_own_scheduler_stays_unless_ddim_is_asked_for(save_pipeline, tmp_path):
    folder = changed(
        save_pipeline("sd15"),
        tmp_path / "euler",
        "model_index.json",
        scheduler=["diffusers", "EulerDiscreteScheduler"],
    )
    own = load_model(ModelSource("folder", str(folder)))
    ddim = load_model(ModelSource("folder", str(folder), scheduler="ddim"))
    assert isinstance(own.pipe.scheduler, EulerDiscreteScheduler)
    assert isinstance(ddim.pipe.scheduler, DDIMScheduler)


def test_a_variant_is_taken_where_there_is_one(save_pipeline, tmp_path):
    """Beside the whole files, or instead of them; a folder without it serves as well."""
    shutil.copytree(save_pipeline("sd15"), tmp_path / "both")
    pipe = load_model(ModelSource("folder", str(save_pipeline("sd15")))).pipe
    pipe.unet.conv_in.bias.data.fill_(3.0)
    pipe.save_pretrained(tmp_path / "variant", variant="fp16")
    pipe.unet.conv_in.bias.data.zero_()
    for file in (tmp_path / "variant").glob("*/*.fp16.safetensors"):
        shutil.copy(file, tmp_path / "both" / file.parent.name / file.name)
    for folder in ("both", "variant"):
        found = load_model(ModelSource("folder", str(tmp_path / folder), variant="fp16")).pipe
        assert found.unet.conv_in.bias.detach().float().unique().tolist() == [3.0]
    load_model(ModelSource("folder", str(save_pipeline("sd15")), variant="fp16"))


def test_another_autoencoder(save_pipeline, tmp_path):
    torch.manual_seed(7)
    tiny_vae().save_pretrained(tmp_path / "vae")
    plain = load_model(ModelSource("folder", str(save_pipeline("sd15"))))
    other = load_model(ModelSource("folder", str(save_pipeline("sd15")), vae=str(tmp_path / "vae")))
    assert other.digest != plain.digest
    expected = AutoencoderKL.from_pretrained(tmp_path / "vae").decoder.conv_in.weight
    torch.testing.assert_close(other.pipe.vae.decoder.conv_in.weight.float(), expected, atol=1e-2, rtol=0)
    (tmp_path / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="the autoencoder at .*vae is incomplete or damaged"):
        load_model(ModelSource("again", str(save_pipeline("sd15")), vae=str(tmp_path / "vae")))


def test_a_single_file_is_its_folder(save_pipeline, tmp_path):
    """The original checkpoints' names, written from a pipeline, load into the same weights."""
    folder = save_pipeline("sd15")
    expected = load_model(ModelSource("folder", str(folder), dtype="float32"))
    save_single_file(expected.pipe, tmp_path / "model.safetensors")
    found = load_model(ModelSource("folder", str(tmp_path / "model.safetensors"), config=str(folder), dtype="float32"))
    for part in ("unet", "vae", "text_encoder"):
        weights = getattr(found.pipe, part).state_dict()
        for name, value in getattr(expected.pipe, part).state_dict().items():
            assert torch.equal(weights[name], value), name
    assert found.digest != expected.digest


def test_a_missing_model_says_what_to_fetch_and_where_to_put_it(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name in ("sd15", "sd21", "sdxl"):
        source = model_source(dict(compose_config([f"model={name}"]).model))
        with pytest.raises(FileNotFoundError) as caught:
            load_model(source)
        message = str(caught.value)
        assert "\n" not in message
        for part in (source.id, source.revision, "hf download", "*.fp16.safetensors", "model.path=DIR"):
            assert part in message


def test_what_is_wrong_is_said(save_pipeline, tmp_path):
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
        (ModelSource("a", str(tmp_path / "model.ckpt")), ValueError, "is a pickle, which can run anything"),
        (ModelSource("a", str(tmp_path / "model.safetensors")), ValueError, "single file: give model.config"),
        (
            ModelSource("a", str(tmp_path / "model.safetensors"), config=str(sd15)),
            ValueError,
            "does not load into the shape of",
        ),
        (ModelSource("a", str(tmp_path / "partial")), ValueError, "partial is incomplete or damaged"),
        (ModelSource("a", str(upscaler)), ValueError, "holds a StableDiffusionUpscalePipeline: text-to-image needs"),
        (ModelSource("a", str(remote)), ValueError, "holds a .*MyPipeline.*: text-to-image needs"),
        (ModelSource("a", str(tmp_path / "nowhere")), FileNotFoundError, "no pipeline folder at"),
        (ModelSource("a", str(sd15), dtype="int8"), ValueError, "model.dtype must be auto, float32"),
        (ModelSource("a", str(sd15), scheduler="plms"), ValueError, "model.scheduler is ddim or null"),
    ]:
        with pytest.raises(error, match=message) as caught:
            load_model(source)
        assert "\n" not in str(caught.value)
