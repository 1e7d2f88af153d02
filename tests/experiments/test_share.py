"""Shares of a run, drawn side by side, end in the files of one that was drawn whole."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from experiments.reproduce import reproduce
from experiments.run import run_cell
from experiments.sampling.generate import draw_cell, is_drawn
from experiments.sampling.manifest import read_records
from experiments.sampling.shards import Share, drawing_share, drawing_whole
from experiments.setup.config import build_cell, compose_config
from tests.experiments.test_run import contents
from tests.tiny import tiny_overrides

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tiny(pipe_folder, tmp_path):
    return [*tiny_overrides(pipe_folder, tmp_path), "prompts.limit=7", "batch_size=1", "model.dtype=float32"]


def cell_of(overrides):
    return build_cell(compose_config(overrides))


def command_of(*overrides):
    return [sys.executable, "-m", "experiments.run", *overrides]


def test_the_last_share_puts_all_together_and_scores(tiny, tmp_path):
    whole = run_cell([*tiny, f"paths.runs={tmp_path / 'whole'}"])
    folder = cell_of(tiny).folder
    for share in ("1/3", "0/3"):
        assert run_cell([*tiny, f"share={share}"]) == folder
        assert not is_drawn(cell_of(tiny))
        assert not (folder / "metrics.json").exists()
    assert [record.id for record in read_records(folder)] == ["000000", "000001", "000003", "000004", "000006"]
    run_cell([*tiny, "share=2/3"])
    assert contents(folder) == contents(whole)
    assert (folder / "metrics.json").is_file()
    assert [path.name for path in folder.glob("manifest*")] == ["manifest.jsonl"]


def test_shares_that_are_drawn_at_once(tiny, tmp_path):
    """In processes of their own, one of them killed on the way; whoever draws the whole completes it."""
    whole = draw_cell(cell_of([*tiny, f"paths.runs={tmp_path / 'whole'}"]))
    slow = [*tiny, "metrics=none"]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": ROOT, "env": os.environ}
    jobs = [subprocess.Popen(command_of(*slow, f"share={i}/2"), **silent) for i in range(2)]
    folder = cell_of(tiny).folder
    while jobs[0].poll() is None and not list(folder.glob("images/000002*")):
        time.sleep(0.01)
    jobs[0].send_signal(signal.SIGKILL)
    jobs[1].wait()
    draw_cell(cell_of(tiny))
    assert contents(folder) == contents(whole)
    assert not list(folder.glob("manifest-*"))
    assert not list(folder.rglob("*.tmp"))


def test_the_whole_waits_for_shares_and_they_for_it(tmp_path):
    order = []

    def whole():
        with drawing_whole(tmp_path):
            order.append("whole")

    with drawing_share(tmp_path, Share(0, 2)), drawing_share(tmp_path, Share(1, 2)):
        waiting = threading.Thread(target=whole)
        waiting.start()
        time.sleep(0.3)
        order.append("shares")
    waiting.join()
    assert order == ["shares", "whole"]
    with drawing_whole(tmp_path):
        late = threading.Thread(
            target=lambda: drawing_share(tmp_path, Share(1, 2)).__enter__() or order.append("late")
        )
        late.start()
        time.sleep(0.3)
        assert "late" not in order
    late.join()
    assert order[-1] == "late"


def test_shares_hold_every_item_once():
    shares = [Share.parse(f"{i}/3").of("abcdefgh") for i in range(3)]
    assert shares == ["adg", "beh", "cf"]


@pytest.mark.parametrize("text", ["3/3", "a/b", "1", "-1/2", "1/0", "0.5/2"])
def test_what_is_no_share_is_said(tiny, text):
    with pytest.raises(ValueError, match="share is I/N with I from 0 to N - 1"):
        cell_of([*tiny, f"share={text}"])


def test_a_table_is_not_made_of_a_share(tiny):
    with pytest.raises(ValueError, match="shares are drawn by python -m experiments.run"):
        reproduce([*tiny, "share=0/2"])
