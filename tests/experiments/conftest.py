"""What several tests of the experiments look at."""

import pytest

from experiments.results.html import report
from experiments.setup import config


@pytest.fixture(scope="session")
def report_page(finished):
    """report.html of the finished experiments, made where no model can be loaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "load_model", None)
        report([f"paths.runs={finished / 'runs'}", f"paths.results={finished / 'results'}"])
    return finished / "results/report.html"
