"""What several tests of the results look at."""

import pytest

from experiments import report
from experiments.setup import models
from tests.once import made_once


@pytest.fixture(scope="session")
def report_page(finished, tmp_path_factory):
    """report.html of the finished experiments, made where no model can be loaded."""

    def make(_):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(models, "load_folder", None)
            report.main([f"paths.runs={finished / 'runs'}", f"paths.results={finished / 'results'}"])

    made_once(tmp_path_factory, "report", make)
    return finished / "results/report.html"
