"""What several tests of the results look at."""

import pytest

from experiments import report
from experiments.setup import models


@pytest.fixture(scope="session")
def report_page(finished):
    """report.html of the finished experiments, made where no model can be loaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "load_folder", None)
        report.main([f"paths.runs={finished / 'runs'}", f"paths.results={finished / 'results'}"])
    return finished / "results/report.html"
