"""What the method reads from the device of a model, each time waiting for it."""

import pytest
import torch
from diffusers import DiffusionPipeline
from torch.overrides import TorchFunctionMode

import scalecrafter
from scalecrafter import FreeU, Settings, dispersion_transform
from scalecrafter.disperse import transform_on
from scalecrafter.settings import expand
from tests.tiny import unet_inputs

TABLE = expand({"mid_block": 3, "up_blocks.1+s": 1.5})
EVERYTHING = Settings(
    TABLE,
    tau=50,
    noise_damped_dilation={"conv_in": 2},
    noise_damped_tau=50,
    dispersed=tuple(TABLE),
    dispersed_tau=50,
    freeu=FreeU(1.2, 1.4, 0.9, 0.2),
)


class Reads(TorchFunctionMode):
    """Counts values of tensors that become Python's."""

    count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.count += getattr(function, "__name__", "") in {
            "item",
            "tolist",
            "cpu",
            "__bool__",
            "__float__",
            "__int__",
        }
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("dtype", "timestep"), [(torch.float16, 500), (torch.float32, torch.tensor(500))], ids=["number", "on the CPU"]
)
def test_nothing_is_read_where_the_timestep_is_known(pipe, dtype, timestep):
    """Tensors of the device "meta" have no values to be read."""
    pipe.unet.to("meta", dtype)
    inputs = {name: value.to("meta", dtype) for name, value in unet_inputs(pipe).items()}
    with scalecrafter.enable(pipe, height=64, width=64, settings=EVERYTHING), torch.no_grad():
        prediction = pipe.unet(timestep=timestep, **inputs).sample
    assert (prediction.shape, prediction.dtype) == ((2, 4, 16, 16), dtype)


@pytest.mark.parametrize(("dtype", "checks"), [(torch.float32, 0), (torch.float16, 1)], ids=str)
def test_a_call_reads_its_timestep_and_a_sampling_whether_it_overflowed(pipe, dtype, checks):
    pipe.to(dtype=dtype).set_progress_bar_config(disable=True)

    def reads():
        with Reads() as counted:
            pipe("a", height=64, width=64, num_inference_steps=3, output_type="latent")
        return counted.count

    plain = reads()
    with scalecrafter.enable(pipe, height=64, width=64, settings=EVERYTHING):
        assert reads() - plain == 3 + checks


def test_the_transform_of_kernels_is_moved_to_a_device_once():
    there = transform_on(torch.device("meta"), torch.float32, 3, 5, 0.05)
    assert there.device.type == "meta"
    assert transform_on(torch.device("meta"), torch.float32, 3, 5, 0.05) is there
    here = transform_on(torch.device("cpu"), torch.float32, 3, 5, 0.05)
    assert torch.equal(here, dispersion_transform().float())


@pytest.mark.parametrize(("family", "options"), [("sd15", {}), ("sdxl", {"denoising_end": 0.5})])
def test_an_overflow_in_any_step_raises(save_pipeline, family, options):
    """A sampling does not recover from it, so the last prediction tells; SDXL may stop before the last timestep."""
    pipe = DiffusionPipeline.from_pretrained(save_pipeline(family), local_files_only=True).to(dtype=torch.float16)
    pipe.set_progress_bar_config(disable=True)
    calls = []

    def overflow(module, args, output):
        calls.append(1)
        return output * float("inf") if len(calls) == 1 else output

    settings = Settings({"mid_block.resnets.0.conv1": 2}, tau=50)
    with (
        pipe.unet.conv_out.register_forward_hook(overflow),
        scalecrafter.enable(pipe, height=64, width=64, settings=settings),
        pytest.raises(ValueError, match="half precision: load the pipeline in bfloat16"),
    ):
        pipe("a b", height=64, width=64, num_inference_steps=4, output_type="latent", **options)
    assert len(calls) == (2 if options else 4)
