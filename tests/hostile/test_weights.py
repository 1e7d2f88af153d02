"""Files of weights, whatever they hold: one line that names the file, and nothing is executed."""

import json
import shutil
import struct
from random import Random

import pytest
import torch
from safetensors.torch import save
from torch import nn

from experiments.scenes.networks import load_network
from experiments.setup.models import DTYPES, ModelSource, load_pipeline
from scalecrafter import cli
from tests.hostile.inputs import BOTH, damaged, error_of, writes_only

PIPELINES = [6, pytest.param(60, marks=pytest.mark.slow)]  # loading one takes a tenth of a second


def file_of(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with this header, which may claim another length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype="F32", shape=(4, 3), offsets=(0, 48)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


KNOWN = {
    "empty": b"",
    "short": b"\0" * 7,
    "no header": file_of(b""),
    "header of 16 EB": file_of({"weight": tensor()}, bytes(48), 2**64 - 1),
    "header of 90 MB": file_of({"weight": tensor()}, bytes(48), 90_000_000),
    "beyond the file": file_of({"weight": tensor(offsets=(0, 10**15))}, bytes(48)),
    "negative": file_of({"weight": tensor(offsets=(-48, 0))}, bytes(48)),
    "backwards": file_of({"weight": tensor(offsets=(48, 0))}, bytes(48)),
    "overlapping": file_of({"weight": tensor(), "bias": tensor(shape=(4,), offsets=(0, 16))}, bytes(48)),
    "a hole": file_of({"weight": tensor(), "bias": tensor(shape=(4,), offsets=(64, 80))}, bytes(80)),
    "huge shape": file_of({"weight": tensor(shape=(2**40, 2**40))}, bytes(48)),
    "huge product": file_of({"weight": tensor(shape=(2**32, 2**32, 0))}, bytes(48)),
    "other dtype": file_of({"weight": tensor(dtype="PICKLE")}, bytes(48)),
    "nested": file_of(b"[" * 100_000),
    "no object": file_of([1]),
    "not UTF-8": file_of(b'{"\xff": 1}'),
    "metadata": file_of({"__metadata__": {"format": [1]}}),
    "unknown format": file_of({"__metadata__": {"format": "pickle"}, "weight": tensor()}, bytes(48)),
    "a pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    "a zip": b"PK\x03\x04" + bytes(100),
}


def load(path, content: bytes) -> None:
    path.write_bytes(content)
    with writes_only():
        error = error_of(lambda: load_network(nn.Linear(3, 4), path))
    assert error is None or str(path) in str(error)


@pytest.mark.parametrize("name", KNOWN)
def test_known_attacks(tmp_path, name):
    load(tmp_path / "network.safetensors", KNOWN[name])


@pytest.mark.parametrize("count", BOTH)
def test_random_files(tmp_path, count):
    random, whole = Random(11), save(nn.Linear(3, 4).state_dict())
    for _ in range(6 * count):
        load(tmp_path / "network.safetensors", damaged(random, whole))


@pytest.fixture
def folder(pipe_folder, tmp_path):
    return shutil.copytree(pipe_folder, tmp_path / "pipeline")


@pytest.mark.parametrize("count", PIPELINES)
def test_damaged_pipelines(folder, count, capsys):
    """Any file of theirs, as the benchmark and the library's command load them."""
    random, files = Random(12), sorted(path for path in folder.glob("*/*") if path.is_file())
    for index in range(count):
        path = random.choice(files)
        whole = path.read_bytes()
        path.write_bytes(random.choice((damaged(random, whole), *list(KNOWN.values())[:3])))
        source = ModelSource(f"model{index}", str(folder), dtype=DTYPES[0])
        error = error_of(lambda source=source: load_pipeline(source))
        assert error is None or str(folder) in str(error)
        arguments = cli.parse(["generate", "a", "--model", str(folder), "--height", "64", "--width", "64"])
        error = error_of(lambda arguments=arguments: cli.load_pipeline(arguments))
        assert error is None or str(folder) in str(error)
        path.write_bytes(whole)
        torch.set_default_dtype(torch.float32)
    assert "Traceback" not in capsys.readouterr().err
