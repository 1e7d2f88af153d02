"""The reference: the experiment, run once without a fault."""

import json
from dataclasses import asdict

import pytest

from tests import commands
from tests.once import made_once


@pytest.fixture(scope="session", autouse=True)
def server_of_experiments():
    """Processes of whole experiments start with the imports made, unless the server runs already."""
    modules = ["experiments.results.artefacts", "experiments.results.tracking", "hydra.main"]
    commands.CONTEXT.set_forkserver_preload(modules)


@pytest.fixture(scope="session")
def finished_and_length(pipe_folder, tmp_path_factory):
    from tests.faults.harness import Experiment, Length, measured

    def make(folder):
        length = measured(Experiment(pipe_folder, folder))
        (folder / "length.json").write_text(json.dumps(asdict(length)))

    folder = made_once(tmp_path_factory, "whole", make)
    return Experiment(pipe_folder, folder), Length(**json.loads((folder / "length.json").read_text()))


@pytest.fixture(scope="session")
def whole(finished_and_length):
    """The finished experiment; not to be changed."""
    return finished_and_length[0]


@pytest.fixture(scope="session")
def length(finished_and_length):
    """Its `Length`."""
    return finished_and_length[1]


@pytest.fixture(scope="session")
def expected(whole):
    from tests.faults.harness import outcome

    return outcome(whole)
