"""Batches of one shape, whatever is missing; smaller ones where the memory does not suffice, recorded as such."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from baselines.direct import Direct
from experiments.sampling.generate import generate_run
from experiments.sampling.manifest import read_lines, read_records
from experiments.scoring.runs import costs_per_image
from scalecrafter.memory import is_out_of_memory
from tests.sampling.test_generate import contents, run_of
from tests.tiny import generate, tiny_overrides

MORE_THAN_THERE_IS = 2**50  # bytes


@dataclass(frozen=True)
class Hungry(Direct):
    """Direct inference that needs memory that no machine has for more than ``most`` images."""

    most: int = 1
    errors: tuple[type[Exception], ...] = ()  # instead, from this number of images on and at half of it
    first: int = 0

    def generate(self, pipe, request):
        if (size := len(request.prompts)) > self.most:
            for halvings, error in enumerate(self.errors):
                if size == self.first >> halvings:
                    raise error("made to fail")
            torch.empty(MORE_THAN_THERE_IS, dtype=torch.uint8)
        return super().generate(pipe, request)


@pytest.fixture
def tiny(pipe_folder, tmp_path):
    return [*tiny_overrides(pipe_folder, tmp_path), "metrics=none", "method=direct", "model.dtype=float32"]


def shapes(run):
    return [record.batch for record in read_records(run.folder)]


def test_what_is_missing_does_not_change_an_image(tiny):
    """With one batch size, byte for byte: the last batch is filled up."""
    run = run_of([*tiny, "prompts.limit=5", "batch_size=2"])
    folder = generate_run(run)
    before = contents(folder)
    for missing in ([0], [1, 3], [2, 3, 4]):
        for index in missing:
            (folder / f"images/{index:06}.png").unlink()
        generate_run(run)
        assert contents(folder) == before
        assert shapes(run) == [2] * 5


def test_the_limit_changes_no_image_of_a_fixed_batch_size(tiny):
    run = run_of([*tiny, "prompts.limit=5", "batch_size=3"])
    folder = generate_run(run)
    before = contents(folder)
    for path in folder.glob("images/*"):
        path.unlink()
    generate_run(run_of([*tiny, "prompts.limit=2", "batch_size=3"]))
    generate_run(run)
    assert contents(folder) == before


def test_the_automatic_batch_is_not_larger_than_the_run(tiny):
    assert run_of([*tiny, "prompts.limit=3"]).batch_size == 3
    assert run_of([*tiny, "prompts.limit=3", "batch_size=8"]).batch_size == 8


def test_copies_that_fill_a_batch_cost_no_image_anything(tiny):
    """U-Net evaluations of an image are those of its share of a batch."""
    run = run_of([*tiny, "prompts.limit=4", "batch_size=3"])
    lines = list(read_lines(generate_run(run) / "costs.jsonl"))
    assert [(line["images"], line["batch"]) for line in lines] == [(3, 3), (1, 3)]
    assert costs_per_image(run.folder)["unet_evaluations_per_image"] == 8


def test_out_of_memory_halves_the_batch_and_goes_on_with_the_same_images(tiny, tmp_path):
    """Torch's own error at 20 images, Python's at 10, that of a GPU at 5."""
    errors = (MemoryError, torch.cuda.OutOfMemoryError)
    run = replace(run_of([*tiny, "prompts.limit=6", "batch_size=20"]), method=Hungry(2, errors, first=10))
    folder = generate_run(run)
    assert shapes(run) == [2] * 6
    assert len(list(read_lines(folder / "costs.jsonl"))) == 3
    small = run_of([*tiny, "prompts.limit=6", "batch_size=2", f"paths.runs={tmp_path / 'small'}"])
    assert contents(generate_run(small)) == contents(folder)


def test_no_memory_for_one_image_says_what_helps(tiny):
    run = replace(run_of([*tiny, "batch_size=2"]), method=Hungry(most=0))
    with pytest.raises(ValueError, match=r"out of memory for one image of 64x64: .*DefaultCPUAllocator"):
        generate_run(run)
    assert not list(run.folder.glob("images/*"))


def test_other_errors_are_no_lack_of_memory(tiny):
    run = replace(run_of([*tiny, "batch_size=2"]), method=Hungry(most=0, errors=(RuntimeError,), first=2))
    with pytest.raises(RuntimeError, match="made to fail"):
        generate_run(run)
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))


# Levels of 255 that an image may differ by from the same in a batch of another size, and the share of values that do:
# about twice what was measured, which docs/reliability.md quotes.
BOUNDS = {"float32": (1, 0.001), "bfloat16": (2, 0.11)}


@pytest.mark.parametrize("dtype", BOUNDS)
def test_the_size_of_a_batch_changes_an_image_by_rounding(pipe_folder, dtype):
    """And neither its place in the batch nor its companions change it."""
    pipe = StableDiffusionPipeline.from_pretrained(pipe_folder, safety_checker=None).to(getattr(torch, dtype))
    whole = generate(Direct(), pipe, range(4), steps=6)
    assert np.array_equal(generate(Direct(), pipe, [*range(3, -1, -1)], steps=6)[::-1], whole)
    levels, share = BOUNDS[dtype]
    for size in (1, 3):
        difference = np.abs(generate(Direct(), pipe, range(size), steps=6).astype(int) - whole[:size])
        assert difference.max() <= levels
        assert (difference > 0).mean() <= share


@pytest.mark.gpu
def test_a_full_gpu_halves_the_batch(tiny):
    """With all but a little of the GPU's memory taken, a batch of 256 images does not fit, and a smaller one does."""
    run = run_of([*tiny, "prompts.limit=256", "batch_size=256", "resolution=x16"])
    run.model.load()
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(free - 2**30, dtype=torch.uint8, device="cuda")
    generate_run(run)
    assert 1 <= shapes(run)[0] < 256
    del taken
