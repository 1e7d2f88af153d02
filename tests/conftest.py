"""Tiny pipelines for all tests.

What needs torch is imported where it is used: the process that only hands out tests to others starts without it.
"""

from __future__ import annotations

import atexit
import gc
import inspect
import os
import signal
import sys
from functools import cache
from pathlib import Path

import pytest

gc.set_threshold(50_000, 20, 20)  # rarely: with Python's own, collections take a tenth of the time
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it to its background jobs
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """A process that tests are handed to ends at once: taking all its modules apart takes ten seconds."""
    if hasattr(config, "workerinput"):
        atexit.register(os._exit, 0)  # registered before the modules' own, so called after them


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What lies beside the folders first: long files, with which a process should not be left at the end."""
    items.sort(key=lambda item: item.path.parent != Path(__file__).parent)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave what the imports made out of every later garbage collection, and note the signature of attention, which
    diffusers looks up in every call of every layer: a tenth of the time that a tiny U-Net takes.
    """
    gc.collect()
    gc.freeze()
    if processors := sys.modules.get("diffusers.models.attention_processor"):
        call = processors.AttnProcessor2_0.__call__
        call.__signature__ = inspect.signature(call)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say that the tests in a browser were skipped: nobody would notice."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if "browser" in report.keywords]
    if skipped:
        reason = skipped[0].longrepr[2].removeprefix("Skipped: ")
        terminalreporter.write_line(
            f"{len(skipped)} tests in a browser were skipped ({reason}): install Chromium (Debian: apt-get install "
            "chromium) and the extras dev and demo, as make test does",
            yellow=True,
        )


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Hashes of weight files go into a folder of the test session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def own_convolutions():
    """PyTorch's own convolutions: on the small feature maps of tiny pipelines oneDNN's take seven times as long.

    Other tests have oneDNN's, as users have: of whole runs, of how batches round, of true networks.
    """
    import torch

    torch.backends.mkldnn.enabled = False
    yield
    torch.backends.mkldnn.enabled = True


@pytest.fixture
def onednn():
    """For a test of a large network where `own_convolutions` are used."""
    import torch

    before, torch.backends.mkldnn.enabled = torch.backends.mkldnn.enabled, True
    yield
    torch.backends.mkldnn.enabled = before


@pytest.fixture
def pipe(tmp_path):
    """A fresh tiny StableDiffusionPipeline."""
    from tests.tiny import tiny_pipeline

    return tiny_pipeline(tmp_path / "tokenizer")


@pytest.fixture(scope="session")
def save_pipeline(tmp_path_factory):
    """save_pipeline(family) -> folder of a tiny pipeline of that family; not to be changed."""
    from tests.tiny import tiny_pipeline, tiny_sdxl_pipeline

    @cache
    def save(family: str) -> Path:
        folder = tmp_path_factory.mktemp(family)
        if family == "sdxl":
            made = tiny_sdxl_pipeline(folder / "tokenizer_source")
        else:
            made = tiny_pipeline(folder / "tokenizer_source", family)
        made.save_pretrained(folder / "pipeline")
        return folder / "pipeline"

    return save


@pytest.fixture(scope="session")
def pipe_folder(save_pipeline):
    """A tiny StableDiffusionPipeline saved to disk; not to be changed."""
    return save_pipeline("tiny")


@pytest.fixture(scope="session")
def light_folder(tmp_path_factory):
    """One that has Stable Diffusion 1.5's settings, but little attention, which takes half of the time."""
    from tests.tiny import TEXT_WIDTH, tiny_pipeline, tiny_unet

    folder = tmp_path_factory.mktemp("light")
    pipe = tiny_pipeline(folder / "tokenizer_source", "sd15")
    pipe.unet = tiny_unet(TEXT_WIDTH["sd15"]).eval()
    pipe.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


@pytest.fixture(scope="session")
def finished(pipe_folder, tmp_path_factory):
    """A folder with ``runs`` and ``results`` of two small experiments, table1 and ablate_tau; not to be changed."""
    from tests.once import made_once
    from tests.tiny import finish_experiments

    return made_once(tmp_path_factory, "finished", lambda folder: finish_experiments(pipe_folder, folder))


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the true format with random weights."""
    from experiments.scoring.libraries import random_inception
    from tests.once import made_once

    folder = made_once(tmp_path_factory, "inception", lambda folder: random_inception(folder / "inception.pth"))
    return folder / "inception.pth"
