"""Which weight files a command line needs, fetching them from a hub on this machine, and what happens without one."""

import logging
import socket
import sys
from contextlib import suppress
from threading import Thread
from urllib.error import URLError

import pytest

from eval.download import RemoteFile
from experiments import reproduce
from experiments.fetch import __main__ as fetch_command
from experiments.fetch import required
from experiments.fetch.required import fetch_missing, required_weights
from experiments.setup.compose import compose_config
from experiments.setup.launch import JobsFailed
from experiments.setup.models import load_pipeline
from experiments.setup.runs import model_source
from experiments.setup.weights import HubFolder
from tests.tiny import tiny_overrides
from tests.web import COMMIT, Web, serving

NOWHERE = "http://127.0.0.1:9"  # refuses every connection
REPOSITORY = "tiny/model"
MODEL = ["model=sd15", f"model.id={REPOSITORY}", f"model.revision={COMMIT}", "model.variant=null", "model.side=32"]
UNWANTED = ("unet/diffusion_pytorch_model.bin", "safety_checker/model.safetensors", "model.ckpt", "run.py")


def use_server(monkeypatch, url, folder):
    """An empty cache in ``folder``, and nothing but this server to fill it from."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))
    place = folder / "torch/hub/checkpoints"
    inception = RemoteFile(f"{url}/inception.pth", place / "inception.pth", "")
    monkeypatch.setattr(required, "published_inception", lambda: inception)
    vgg = f"{url}/vgg16-397923af.pth", place / "vgg16-397923af.pth"
    monkeypatch.setattr(required, "vgg_weights", lambda: vgg)


@pytest.fixture
def hub(tmp_path, monkeypatch, save_pipeline):
    """A server with a repository of a tiny pipeline, which has more files than are wanted, and Inception's file."""
    web = Web({"/inception.pth": b"inception"})
    web.add_repository(REPOSITORY, save_pipeline("sd15"))
    for name in UNWANTED:
        web.files[f"/{REPOSITORY}/resolve/{COMMIT}/{name}"] = b"not wanted"
    with serving(web):
        use_server(monkeypatch, web.url, tmp_path)
        yield web


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    use_server(monkeypatch, NOWHERE, tmp_path)


def names(*overrides):
    return [weights.name for weights in required_weights(compose_config(list(overrides)))]


def test_requirements_follow_the_configuration(tmp_path, save_pipeline):
    sd15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    inception, vgg = "weights-inception-2015-12-05-6726825d.pth", "vgg16-397923af.pth"
    assert names() == []
    assert names("method=syncdiffusion") == []  # scenes have a distance of their own
    assert names("model=sd15", "metrics=none") == [sd15]
    assert names("model=sd15", "metrics=inception") == [sd15, inception]
    assert names("model=sd15", "metrics=inception", "metrics.weights=/mine.pth") == [sd15]
    assert names("model=sd15", "metrics=clip") == [sd15, "openai/clip-vit-large-patch14"]
    assert names("metrics=dinov2", "metrics.weights=mine/dino") == ["mine/dino"]
    assert names("metrics=dinov2", f"metrics.weights={tmp_path}") == []
    assert names("model=sd15", "method=syncdiffusion", "metrics=inception") == [sd15, inception, vgg]
    folder = save_pipeline("sd15")
    upscaler = names(f"model.path={folder}", "method=upscale_sd", "metrics=none")
    assert upscaler == ["stabilityai/stable-diffusion-x4-upscaler"]
    assert names("model=folder", f"model.path={folder}", "model.vae=mine/vae", "metrics=none") == ["mine/vae"]
    single = tmp_path / "model.safetensors"
    single.touch()
    (found,) = required_weights(compose_config(["model=sd15", f"model.path={single}", "metrics=none"]))
    assert (found.name, found.wanted) == (sd15, ["*.json", "*.txt"])
    assert names("model=sd15", f"model.path={single}", f"model.config={folder}", "metrics=none") == []


def test_the_hash_of_vggs_weights_is_in_their_name():
    *_, vgg = required_weights(compose_config(["model=sd15", "method=syncdiffusion", "metrics=none"]))
    assert vgg.sha256 == "397923af"
    assert vgg.url.startswith("https://")


def test_a_model_is_fetched_from_the_hub_and_loads(hub, save_pipeline, tmp_path, capsys):
    line = ["experiment=paper", *MODEL, "resolution=x4", "method=direct"]
    fetch_command.main(line)
    lines = capsys.readouterr().out.splitlines()
    kinds = (".json", ".txt", ".safetensors")
    size = sum(path.stat().st_size for path in save_pipeline("sd15").rglob("*") if path.suffix in kinds)
    assert lines[:2] == [f"{REPOSITORY}: {size / 1e9:.2f} GB", "inception.pth: 0.00 GB"]
    assert lines[2].startswith(f"To fetch: {size / 1e9:.2f} GB, to {tmp_path / 'hub'} (HF_HOME)")
    fetched = [path for method, path, _ in hub.requests if method == "GET" and path in hub.files]
    assert len(fetched) > 5
    assert not [path for path in fetched if path.endswith(UNWANTED)]
    hub.files.clear()  # what is here needs no server
    fetch_command.main(line)
    assert f"{REPOSITORY}: here" in capsys.readouterr().out
    source = model_source(dict(compose_config(MODEL).model))
    assert load_pipeline(source).unet.config.cross_attention_dim == 768
    assert source.locate().name == COMMIT


def test_damaged_and_lost_files_are_fetched_again(hub):
    remote = HubFolder(REPOSITORY, "model.path=DIR", COMMIT)
    folder = remote.fetch()
    assert remote.is_here()
    assert remote.size() == 0
    unet = folder / "unet/diffusion_pytorch_model.safetensors"
    whole = unet.read_bytes()
    unet.resolve().write_bytes(whole[:-8] + b"12345678")
    assert remote.fetch() == folder
    assert unet.read_bytes() == whole
    blobs = [path.name for path in (folder.parents[1] / "blobs").iterdir()]
    assert len([name for name in blobs if name.endswith(".damaged")]) == 1
    unet.resolve().unlink()
    assert not remote.is_here()
    assert remote.size() == len(whole)
    remote.fetch()
    assert unet.read_bytes() == whole


def test_a_server_that_breaks_off_leaves_something_to_continue(hub):
    remote = HubFolder(REPOSITORY, "model.path=DIR", COMMIT)
    hub.breaks = [3] * 4
    for _ in range(3):
        try:
            remote.fetch()
        except FileNotFoundError:
            assert not remote.is_here()
    assert remote.is_here()


def test_a_server_that_does_not_answer_is_asked_once(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        use_server(monkeypatch, f"http://127.0.0.1:{server.getsockname()[1]}", tmp_path)
        asked = []

        def hang_up():
            with suppress(OSError):  # closed at the end
                while True:
                    connection, _ = server.accept()
                    asked.append(connection.recv(4))
                    connection.close()

        Thread(target=hang_up, daemon=True).start()
        remote = HubFolder(REPOSITORY, "model.path=DIR", COMMIT)
        with pytest.raises(OSError, match="does not answer"):
            remote.size()
        with pytest.raises(FileNotFoundError, match="not in the local cache and cannot be fetched"):
            remote.fetch()
    assert asked == [b"HEAD", b"HEAD"]


def test_the_fetch_command_reports_all_failures_together(no_network, capsys):
    with pytest.raises(FileNotFoundError, match="3 of 3 could not be fetched: .*diffusion.*inception.pth.*vgg16"):
        fetch_command.main(["model=sd15", "resolution=x4", "method=direct,syncdiffusion"])
    assert capsys.readouterr().out.count("size unknown, no connection") == 3


def test_nothing_is_needed_for_scenes(capsys):
    fetch_command.main(["resolution=x4", "method=direct,syncdiffusion"])
    assert "Nothing to fetch" in capsys.readouterr().out


def test_everything_missing_is_reported_before_anything_is_sampled(no_network, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["test"])
    line = ["experiment=paper", "model=sd15", "resolution=x4", "prompts=demo", "prompts.limit=1k"]
    line += ["method=direct,syncdiffusion", f"paths.runs={tmp_path / 'runs'}"]
    with pytest.raises(FileNotFoundError, match="2 of 2 runs lack weights that cannot be fetched: st") as caught:
        reproduce.main(line)
    message = str(caught.value)
    assert "v1-5, inception.pth, vgg16-397923af.pth. On a machine" in message
    assert f"`python -m experiments.fetch {' '.join(line)}`" in message
    assert "\n" not in message
    assert not (tmp_path / "runs").exists()


def test_rows_that_lack_nothing_go_on(no_network, pipe_folder, tmp_path, monkeypatch, caplog):
    """Those of SyncDiffusion need VGG's weights, which nobody has, and those of another folder a model."""

    def offline(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    monkeypatch.setattr(sys, "argv", ["test"])
    tiny = [*tiny_overrides(pipe_folder, tmp_path), "model.distance=null", "prompts.limit=3"]
    tiny += ["metrics.crops=null", "metrics.repetition=null", "metrics.reference_count=4"]
    grid = ["method=syncdiffusion,direct", f"model.path={pipe_folder},/gone"]
    line = ["experiment=table1", "resolution=x4", *tiny, *grid]
    with caplog.at_level(logging.WARNING), pytest.raises(JobsFailed, match="3 of 4 jobs failed") as caught:
        reproduce.main(line)
    assert f"method=syncdiffusion model.path={pipe_folder}: LPIPS needs the VGG16 weights" in str(caught.value)
    assert "method=direct model.path=/gone: no pipeline folder at /gone" in str(caught.value)
    assert "2 of 4 runs lack weights that cannot be fetched: vgg16-397923af.pth" in caplog.text
    assert "| direct" in (tmp_path / "results/table1.md").read_text()


def test_a_run_fetches_what_it_lacks(hub):
    line = [*MODEL, "metrics=none"]
    fetch_missing([compose_config(line)], line)
    assert HubFolder(REPOSITORY, "model.path=DIR", COMMIT).is_here()
