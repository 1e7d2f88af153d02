"""The reference: the experiment, run once without a fault."""

import pytest

from tests import commands


@pytest.fixture(scope="session", autouse=True)
def server_of_experiments():
    """Processes of whole experiments start with the imports made, unless the server runs already."""
    modules = ["experiments.results.artefacts", "experiments.results.tracking", "hydra.main"]
    commands.CONTEXT.set_forkserver_preload(modules)


@pytest.fixture(scope="session")
def whole(pipe_folder, tmp_path_factory):
    """The finished experiment; not to be changed."""
    from tests.faults.harness import Experiment

    experiment = Experiment(pipe_folder, tmp_path_factory.mktemp("whole"))
    experiment.resume()
    return experiment


@pytest.fixture(scope="session")
def expected(whole):
    from tests.faults.harness import outcome

    return outcome(whole)
