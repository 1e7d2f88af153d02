"""Hydra as its users know it: every run through hydra.main, jobs under each launcher, and what becomes of failures."""

import json
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import psutil
import pytest
import yaml
from hydra import compose, initialize_config_dir

from experiments.setup.compose import compose_config
from experiments.setup.launch import JobsFailed, Outcome, launch, read_outcome, report_failures
from experiments.setup.runs import build_run
from experiments.setup.schema import CONF
from tests.commands import run
from tests.tiny import tiny_overrides

ROOT = Path(__file__).resolve().parents[2]
TAUS = ["experiment=ablate_tau", "resolution=x4", "scalecrafter.tau=99,50"]  # 99 is not a valid tau
SUBMITIT = ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"]  # slurm_gpu's local counterpart


@pytest.fixture
def tiny(pipe_folder, tmp_path):
    return [*tiny_overrides(pipe_folder, tmp_path), "prompts.limit=3", "metrics.crops=null"]


@pytest.mark.slow  # the basic launcher is tested below, in this process
@pytest.mark.parametrize("launcher", [["hydra/launcher=local_cpu"], SUBMITIT], ids=["joblib", "submitit"])
def test_failed_jobs_stop_no_other_under_any_launcher(tiny, tmp_path, launcher):
    line = [*TAUS, *tiny, *launcher, "metrics=none", f"hydra.run.dir={tmp_path / 'jobs'}"]
    command = [sys.executable, "-m", "experiments.run", *line]  # joblib's processes do not start from a forked one
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        "error: 1 of 2 jobs failed, the others are complete: scalecrafter.tau=99: tau counts reference steps"
    )
    good = build_run(compose_config([*tiny, "method=scalecrafter", "scalecrafter.tau=50", "metrics=none"]))
    assert len(list(good.folder.glob("images/*.png"))) == 3
    assert read_outcome(tmp_path / "jobs/0").error is not None
    assert read_outcome(tmp_path / "jobs/1").error is None


def test_a_schedulers_process_fails_with_its_job(tiny):
    """Hydra keeps a job's error as a result; submitit's process has to exit non-zero for SLURM to see it."""
    done = run(*tiny, "scalecrafter.tau=99", "seed=0,1", "metrics=none", SUBMITIT_EXECUTOR="slurm")
    assert done.returncode == 1
    assert "2 of 2 jobs failed" in done.stderr


@pytest.mark.slow
def test_a_job_at_its_time_limit_is_queued_again_and_resumes(tiny, tmp_path):
    """The signal that SLURM sends before a time limit, to a job of submitit's local executor: it is handled alike."""
    jobs = tmp_path / "jobs"
    line = [*tiny, "metrics=none", "method=direct", "batch_size=1", "sampler.steps=100", *SUBMITIT, "-m"]
    options = [f"hydra.run.dir={jobs}", "hydra.launcher.timeout_min=9", "+hydra.launcher.max_num_timeout=2"]
    command = [sys.executable, "-m", "experiments.run", *line, *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 600
    while not (images := list(tmp_path.glob("runs/folder-direct-*/images/*.png"))):
        assert time.monotonic() < end, "gave up waiting"
        time.sleep(0.05)
    for child in psutil.Process(process.pid).children(recursive=True):
        if "submitit.core._submit" in child.cmdline():
            child.send_signal(signal.SIGUSR2)
    assert process.wait(600) == 0
    logs = "".join(path.read_text() for path in jobs.glob(".submitit/*/*_log.*"))
    assert "Requeued job" in logs
    assert len(list(images[0].parent.glob("*.png"))) == 3
    assert read_outcome(jobs / "0").error is None


def test_one_run_leaves_its_configuration_and_logs(tiny, tmp_path):
    """Through hydra.main: hydra.* overrides act, .hydra is written, debug logs appear on request."""
    jobs = tmp_path / "jobs"
    done = run(*tiny, "method=direct", "metrics=none", f"hydra.run.dir={jobs}", "hydra.verbose=true")
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[-1])
    assert yaml.safe_load((jobs / ".hydra/overrides.yaml").read_text())[-2:] == ["method=direct", "metrics=none"]
    resolved = yaml.safe_load((folder / ".hydra/config.yaml").read_text())
    assert resolved["method"]["object"]["_target_"] == "baselines.direct.Direct"
    assert "${" not in (folder / ".hydra/config.yaml").read_text()
    assert "images to generate" in (jobs / "run.log").read_text()
    assert read_outcome(jobs) == Outcome(yaml.safe_load((jobs / ".hydra/overrides.yaml").read_text()))


def test_a_failed_single_run_is_one_line_and_exit_code_two(tiny, pipe_folder, tmp_path):
    import shutil

    damaged = shutil.copytree(pipe_folder, tmp_path / "damaged")
    (damaged / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"damaged")
    done = run(*tiny, f"model.path={damaged}")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: the model at {damaged} is incomplete or damaged")
    assert "Traceback" not in done.stderr


def test_information_is_hydras(tmp_path):
    """--help names groups and examples, --cfg job what will act, an experiment's settings included."""
    shown = run("--help").stdout
    for text in (
        "attention_scaling,",
        "scalecrafter/freeu:",
        "== Examples ==",
        "experiment=ablate_tau",
    ):
        assert text in shown
    config = yaml.safe_load(run("--cfg", "job", "experiment=ablate_dilation").stdout)
    assert config["scalecrafter"]["dispersed_tau"] == 0
    assert config["prompts"]["limit"] == "${experiment.prompts.${resolution.name}}"


def test_sweeps_run_in_process_report_every_failure_and_keep_nothing_of_it(tmp_path, monkeypatch):
    """The tensors of a failed job would stand in the way of the jobs after it in the same process."""
    seen, alive = [], []

    class Tensor:
        pass

    def job(config):
        seen.append(config.seed)
        assert [found() for found in alive] == [None] * len(alive)
        held = Tensor()
        alive.append(weakref.ref(held))
        if config.seed == 0:
            raise ValueError("made\nto fail")
        if config.seed == 1:
            raise RuntimeError("unexpected")

    monkeypatch.setattr(sys, "argv", ["test"])
    line = ["method=direct", "seed=0,1,2", f"paths.runs={tmp_path}"]
    message = "2 of 3 jobs failed, the others are complete: seed=0: made to fail; seed=1: RuntimeError: unexpected"
    with pytest.raises(JobsFailed, match=message) as failed:
        launch(job, line)
    assert seen == [0, 1, 2]
    (jobs,) = tmp_path.glob(".jobs/*")
    assert f"(tracebacks: {jobs}/*/error.txt)" in str(failed.value)
    assert "held = Tensor()" not in (jobs / "1/error.txt").read_text()
    assert 'raise RuntimeError("unexpected")' in (jobs / "1/error.txt").read_text()
    assert [path.name for path in sorted(jobs.glob("*")) if (path / "error.txt").exists()] == ["0", "1"]
    assert json.loads((jobs / "2/outcome.json").read_text())["error"] is None


def test_skipped_rows_do_nothing(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "argv", ["test"])
    rows = ["experiment=table1", "resolution=x16", "method=syncdiffusion", f"paths.runs={tmp_path}"]
    launch(lambda config: seen.append(config.method.name), rows)
    assert seen == ["syncdiffusion"]  # both keys of the rule are on the command line
    seen.clear()
    own = "hydra.sweeper.params.method='direct,syncdiffusion'"  # as if the experiment compared no others
    launch(lambda config: seen.append(config.method.name), [*rows[:2], own, rows[3]])
    assert seen == ["direct"]
    assert len(list(tmp_path.glob(".jobs/*/*/outcome.json"))) == 3  # what is left out has an outcome too


def test_a_job_that_left_nothing_was_killed(tmp_path):
    (tmp_path / "3").mkdir()
    outcome = read_outcome(tmp_path / "3")
    with pytest.raises(JobsFailed, match="1 of 2 jobs failed.*job 3: no outcome in .*3: the job was killed"):
        report_failures(None, [Outcome(["a=1"]), outcome])
    report_failures(None, [Outcome(["a=1"]), Outcome(["a=2"])])


def test_slurm_launcher_asks_for_one_gpu_per_run():
    """Running it needs SLURM: what it would ask for is read."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(
            "config", ["hydra/launcher=slurm_gpu", "hydra.launcher.partition=gpu"], return_hydra_config=True
        )
    launcher = config.hydra.launcher
    assert launcher._target_.endswith("SlurmLauncher")
    assert (launcher.gpus_per_node, launcher.partition, launcher.tasks_per_node) == (1, "gpu", 1)
    assert launcher.max_num_timeout >= 1
    assert launcher.signal_delay_s >= 60


def test_help_and_errors_load_no_model_library():
    code = "import sys, experiments.run; print([name for name in ('torch', 'diffusers') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
