"""Interleaved images against torch's dilated convolution, and the command that compares their times."""

import json

import pytest
import torch
from torch.nn import functional as F

from experiments.cost import space_to_batch
from experiments.cost.space_to_batch import interleaved_conv2d, main


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize(("d", "k"), [(1, 3), (2, 3), (3, 3), (4, 3), (2, 5)])
def test_interleaved_images_are_a_dilated_convolution(d, k, last):
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((2, 3, 12, 24), (4, 3, k, k), (4,))
    )
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    found = interleaved_conv2d(x, weight, bias, d)
    torch.testing.assert_close(found, F.conv2d(x, weight, bias, padding=d * (k // 2), dilation=d))
    assert found.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def test_every_layer_and_factor_is_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(space_to_batch, "LAYERS", ((4, 8), (8, 4)))
    main(["--repeats", "1", "--dtypes", "float32", "bfloat16", "--results", str(tmp_path)])
    report = json.loads((tmp_path / "benchmark_space_to_batch.json").read_text())
    assert json.loads(capsys.readouterr().out) == report
    assert len(report["layers"]) == 4
    for rows in report["layers"].values():
        assert [row["layer"] for row in rows] == [
            f"{layer}, d = {d}" for layer in ("4 channels, 8x8", "8 channels, 4x4") for d in (2, 4)
        ]
        assert all(row["ratio"] == pytest.approx(row["interleaved"] / row["dilated"]) for row in rows)
