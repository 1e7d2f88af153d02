"""Which GPU and which part of the work a process takes, without a GPU: by the strings and shards that it chooses."""

import pytest

from experiments.setup.processes import Shard, choose_device, shard_of_process, torchrun_rank
from tests.commands import CONTEXT, PATIENCE


def take(folder, environment, count, pipe, go_on):
    pipe.send(choose_device(count, environment, folder))
    go_on.wait(PATIENCE)


def devices_of_processes(folder, *seen) -> list[str]:
    """What processes choose one after the other, all of which are still there when the last chooses.

    Args:
        seen: for each the environment and the number of GPUs that it sees.
    """
    go_on, found, processes = CONTEXT.Event(), [], []
    for environment, count in seen:
        here, there = CONTEXT.Pipe()
        processes.append(CONTEXT.Process(target=take, args=(folder, environment, count, there, go_on)))
        processes[-1].start()
        assert here.poll(PATIENCE)
        found.append(here.recv())
    go_on.set()
    for process in processes:
        process.join(PATIENCE)
    return found


def test_jobs_side_by_side_get_a_gpu_of_their_own(tmp_path):
    """Six on four GPUs: the last two share with others; once all have ended, the GPUs are free again."""
    found = devices_of_processes(tmp_path, *[({}, 4)] * 6)
    assert found == ["cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:0", "cuda:1"]
    assert devices_of_processes(tmp_path, ({}, 4)) == ["cuda:0"]


def test_visible_gpus_are_counted_by_their_names(tmp_path):
    """The second process sees GPUs 2 and 3, of which the first has taken GPU 2 under another number."""
    first, second = {"CUDA_VISIBLE_DEVICES": "2"}, {"CUDA_VISIBLE_DEVICES": "2,3"}
    assert devices_of_processes(tmp_path, (first, 1), (second, 2)) == ["cuda:0", "cuda:1"]


def test_torchrun_says_which_gpu_is_whose(tmp_path):
    found = [choose_device(2, {"LOCAL_RANK": str(rank)}, tmp_path) for rank in range(4)]
    assert found == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert not list(tmp_path.iterdir())


def test_torchruns_processes_share_the_prompts(monkeypatch):
    assert torchrun_rank({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}) == (3, 4)
    assert torchrun_rank({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}) is None
    assert torchrun_rank({"RANK": "3", "WORLD_SIZE": "4"}) is None
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert shard_of_process(None) == Shard(3, 4)
    with pytest.raises(ValueError, match="torchrun gives each of its processes a shard: leave shard= out"):
        shard_of_process("0/2")
