"""Video models: their spatial convolutions are dilated as those of images, temporal ones never."""

import copy

import numpy as np
import pytest
import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    MotionAdapter,
    StableVideoDiffusionPipeline,
    TextToVideoSDPipeline,
    UNet3DConditionModel,
    UNetSpatioTemporalConditionModel,
)
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

import scalecrafter
from scalecrafter import Settings, noise_damped
from scalecrafter.settings import expand
from tests.tiny import tiny_pipeline

FRAMES = 3
WIDTHS = (8, 16, 16, 16)
NAMES = ("down_blocks.1.resnets.0.conv1", "mid_block.resnets.0.conv1", "up_blocks.1.upsamplers.0.conv")
SPATIO_TEMPORAL = tuple(name.replace(".conv1", ".spatial_res_block.conv1") for name in NAMES)


def animatediff(folder):
    torch.manual_seed(0)
    pipe = tiny_pipeline(folder)
    adapter = MotionAdapter(
        WIDTHS,
        motion_layers_per_block=2,
        motion_num_attention_heads=2,
        motion_norm_num_groups=4,
        motion_max_seq_length=8,
    )
    parts = {name: part for name, part in pipe.components.items() if name not in ("safety_checker", "image_encoder")}
    return AnimateDiffPipeline(**parts, motion_adapter=adapter)


def modelscope(folder):
    torch.manual_seed(0)
    pipe = tiny_pipeline(folder)
    unet = UNet3DConditionModel(
        sample_size=8,
        block_out_channels=WIDTHS,
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    ).eval()
    kept = ("vae", "text_encoder", "tokenizer", "scheduler")
    return TextToVideoSDPipeline(**{name: getattr(pipe, name) for name in kept}, unet=unet)


def stable_video(folder):
    torch.manual_seed(0)
    unet = UNetSpatioTemporalConditionModel(
        sample_size=8,
        block_out_channels=(32, 32, 64, 64),
        cross_attention_dim=16,
        num_attention_heads=(2, 2, 2, 2),
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24,
    ).eval()
    vae = AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * 3, block_out_channels=(32, 32, 32), layers_per_block=1
    ).eval()
    encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=224,
            patch_size=112,
            projection_dim=16,
        )
    ).eval()
    scheduler = EulerDiscreteScheduler(
        beta_schedule="scaled_linear",
        timestep_type="continuous",
        timestep_spacing="leading",
        prediction_type="v_prediction",
        sigma_min=0.002,
        sigma_max=700.0,
        use_karras_sigmas=True,
        steps_offset=1,
    )
    processor = CLIPImageProcessor()
    return StableVideoDiffusionPipeline(vae, encoder, unet, scheduler, processor)


MAKERS = {"animatediff": animatediff, "modelscope": modelscope, "stable_video": stable_video}


@pytest.fixture(params=MAKERS)
def pipe(request, tmp_path):
    """Saved and loaded again, as users have it."""
    made = MAKERS[request.param](tmp_path / "made")
    made.save_pretrained(tmp_path / "saved")
    loaded = type(made).from_pretrained(tmp_path / "saved")
    loaded.set_progress_bar_config(disable=True)
    return loaded


def names_of(pipe):
    return SPATIO_TEMPORAL if isinstance(pipe, StableVideoDiffusionPipeline) else NAMES


def inputs_of(pipe):
    """Random arguments of the U-Net, a guidance pair, for frames of 64x64 pixels, and its timestep."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(2, 5, 16, generator=generator)
    if isinstance(pipe, StableVideoDiffusionPipeline):
        sample = torch.randn(2, FRAMES, 8, 16, 16, generator=generator)
        times = torch.tensor([[6.0, 127.0, 0.02]] * 2)
        return {"sample": sample, "encoder_hidden_states": text[:, :1], "added_time_ids": times, "timestep": 1.0}
    if isinstance(pipe, AnimateDiffPipeline):
        text = text.repeat_interleave(FRAMES, dim=0)
    sample = torch.randn(2, 4, FRAMES, 16, 16, generator=generator)
    return {"sample": sample, "encoder_hidden_states": text, "timestep": 900}


@torch.no_grad()
def dilated_by_hand(pipe, factor):
    """The prediction of a copy whose convolutions torch dilates."""
    unet = copy.deepcopy(pipe.unet)
    for name in names_of(pipe) if factor > 1 else ():
        conv = unet.get_submodule(name)
        conv.dilation, conv.padding = (factor, factor), (factor, factor)
    return unet(**inputs_of(pipe)).sample


@torch.no_grad()
def enabled(pipe, settings):
    with scalecrafter.enable(pipe, height=64, width=64, settings=settings):
        return pipe.unet(**inputs_of(pipe)).sample


def test_every_frame_equals_the_explicit_form(pipe):
    names = names_of(pipe)
    plain = Settings(dict.fromkeys(names, 2), tau=50)
    found, expected = enabled(pipe, plain), dilated_by_hand(pipe, 2)
    assert not torch.allclose(found, dilated_by_hand(pipe, 1), atol=1e-4)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    damped = Settings(dict.fromkeys(names, 2), tau=50, noise_damped_tau=50)
    base = dilated_by_hand(pipe, 1).chunk(2)[0]
    expected = torch.cat(noise_damped(base, *expected.chunk(2)))
    torch.testing.assert_close(enabled(pipe, damped), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pipe", ["modelscope", "stable_video"], indirect=True)
def test_temporal_convolutions_cannot_be_dilated(pipe):
    temporal = next(name for name, module in pipe.unet.named_modules() if isinstance(module, torch.nn.Conv3d))
    with pytest.raises(ValueError, match="not a 3x3 convolution"):
        scalecrafter.enable(pipe, height=64, width=64, settings=Settings({temporal: 2}, tau=50))


def test_videos_change_and_the_pipeline_is_restored(pipe):
    if isinstance(pipe, StableVideoDiffusionPipeline):
        options = {"image": Image.new("RGB", (64, 64), "teal"), "decode_chunk_size": FRAMES}
    else:
        options = {"prompt": "a b", "guidance_scale": 5.0}

    def sample():
        generator = torch.Generator().manual_seed(1)
        size = {"height": 64, "width": 64, "num_frames": FRAMES, "num_inference_steps": 2}
        frames = pipe(**options, **size, generator=generator, output_type="np").frames
        return np.asarray(frames)

    before = sample()
    settings = Settings(dict.fromkeys(names_of(pipe), 2), tau=50, noise_damped_tau=50)
    with scalecrafter.enable(pipe, height=64, width=64, settings=settings):
        changed = sample()
    assert (np.abs(changed - before).max(axis=(-3, -2, -1)) > 1e-6).all()  # in every frame
    assert np.array_equal(sample(), before)


def test_motion_models_have_the_settings_of_their_image_models(tmp_path):
    pipe = animatediff(tmp_path)
    pipe.unet.register_to_config(cross_attention_dim=768)
    assert scalecrafter.auto_settings(pipe, 64, 64) == Settings.load("sd15_x4")
    scalecrafter.enable(pipe, height=64, width=64, settings="sd15_x16").disable()
    assert set(expand({"mid_block": 2})) <= {name for name, _ in pipe.unet.named_modules()}
