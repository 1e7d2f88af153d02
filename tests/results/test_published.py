"""Published values stand beside ours only where they can be compared."""

from typing import Any

import pandas as pd
import pytest

from experiments.results import published
from experiments.results.published import published_beside, published_count, published_scores

CLEAN = "LAION-5B prompts; 30k images at 1024x1024, 10k above; clean-fid"
PROTOCOL = {"extractor": "inception", "resizing": "clean, to 299x299", "crops": "random 299:4"}


def row(size: str = "1024x1024", **values: Any) -> dict[str, Any]:
    ours = {"model": "sd21", "method": "direct", "size": size, "n": 30_000}
    return ours | {"fid_r": 31.234, "kid_r": 0.0123, "pfid_r": None} | values


@pytest.fixture(autouse=True)
def file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four published values of one paper and one of another."""
    keys = {"source": "A", "table": "Table 1", "model": "sd21", "method": "direct", "protocol": CLEAN}
    base = keys | {"height": 1024, "width": 1024}
    values = [
        base | {"metric": "fid_r", "value": 29.89},
        base | {"metric": "pfid_r", "value": 20.88},
        base | {"metric": "seconds", "value": 5.0},
        keys | {"height": 2048, "width": 2048, "metric": "kid_r", "value": 0.05},
        base | {"source": "B", "protocol": "A800", "metric": "fid_r", "value": 40.0},
    ]
    monkeypatch.setattr(published, "published_scores", lambda: pd.DataFrame(values))


def tables(text: str) -> dict[str, list[list[str]]]:
    """Cells of the rows below each heading."""
    found: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        if line.startswith("Published"):
            current = found[line] = []
        elif line.startswith("| "):
            current.append([cell.strip() for cell in line.strip("|").split("|")])
    return {heading: rows[1:] for heading, rows in found.items()}


def test_comparable_values_stand_beside_ours() -> None:
    text = published_beside(pd.DataFrame([row(), row("2048x2048", n=10_000)]), PROTOCOL)
    found = tables(text)
    assert found[published.COMPARABLE] == [
        ["1024x1024", "direct", "FID_r", "31.2", "29.9 [1]"],
        ["2048x2048", "direct", "KID_r", "0.0123", "0.05 [1]"],
    ]
    assert found[published.NOT_COMPARABLE] == [
        ["1024x1024", "direct", "pFID_r", "20.9 [1]", "crops: not fully stated, ours random 299:4"],
        ["1024x1024", "direct", "FID_r", "40 [2]", "n: not stated, ours 30000"],
    ]
    assert text.endswith(f"[1] A: {CLEAN}\n[2] B: A800")


@pytest.mark.parametrize(
    ("ours", "protocol", "reason"),
    [
        ({"n": 1000}, {}, "n: 30000, ours 1000"),
        ({}, {"extractor": "dinov2"}, "extractor: inception, ours dinov2"),
        ({}, {"resizing": "legacy, to 299x299"}, "resizing: clean, ours legacy"),
        ({"n": 64}, {"extractor": "scenes"}, "extractor: inception, ours scenes; n: 30000, ours 64"),
    ],
)
def test_other_values_stand_apart_with_the_reason(ours: dict, protocol: dict, reason: str) -> None:
    found = tables(published_beside(pd.DataFrame([row(**ours)]), PROTOCOL | protocol))
    assert found.keys() == {published.NOT_COMPARABLE}
    assert found[published.NOT_COMPARABLE][0] == ["1024x1024", "direct", "FID_r", "29.9 [1]", reason]


def test_nothing_is_shown_for_other_models_methods_and_sizes() -> None:
    others = [row("512x512"), row(model="scenes"), row(method="upscale")]
    assert published_beside(pd.DataFrame(others), PROTOCOL) == ""


def test_number_of_images_is_read_from_every_protocol_of_the_file() -> None:
    assert (published_scores()["value"] >= 0).all()
    found = {
        (value["source"].split()[0], value["height"]): published_count(
            value["protocol"], value["height"], value["width"]
        )
        for value in published_scores().to_dict("records")
    }
    assert found == {
        ("Self-Cascade", 1024): 30_000,
        ("Self-Cascade", 2048): 10_000,
        ("FreeScale", 2048): None,
        ("FreeScale", 4096): None,
        ("LSRNA", 2048): 1000,
        ("LSRNA", 4096): 1000,
        ("RectifiedHR", 2048): 1000,
        ("RectifiedHR", 4096): 1000,
        ("MegaFusion", 1024): 10_000,
        ("MegaFusion", 2048): 10_000,
    }
