"""The smallest video pipelines."""

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
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.tiny import tiny_pipeline

FRAMES = 2
WIDTHS = (8, 16, 16, 16)
NAMES = ("down_blocks.1.resnets.0.conv1", "mid_block.resnets.0.conv1", "up_blocks.1.upsamplers.0.conv")
SPATIO_TEMPORAL = tuple(name.replace(".conv1", ".spatial_res_block.conv1") for name in NAMES)


def motion_adapter():
    """For the tiny pipelines of Stable Diffusion, and at most 8 frames."""
    return MotionAdapter(
        WIDTHS,
        motion_layers_per_block=2,
        motion_num_attention_heads=2,
        motion_norm_num_groups=4,
        motion_max_seq_length=8,
    )


def animatediff(folder):
    torch.manual_seed(0)
    pipe, adapter = tiny_pipeline(folder), motion_adapter()
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
