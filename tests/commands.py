"""Commands of the project in processes of their own.

They are forked from a server that has made the imports: the exit code, the output and the death of a command are
those of `python -m`, without the ten seconds that importing takes each time.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from multiprocessing.process import BaseProcess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 120  # seconds until a test gives up waiting for a process

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["experiments.sampling.generate", "experiments.scoring.runs", "hydra.main"])


def main(module: str, arguments: tuple[str, ...], environment: dict[str, str], out: str, err: str) -> None:
    """What the process does: ``python -m module arguments``, from the root, with its output in two files."""
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # which a process of `multiprocessing` leaves out


def start(
    *arguments: str, module: str = "experiments.run", out: str = os.devnull, err: str = os.devnull, **environment: str
) -> BaseProcess:
    """Start a command and return its process; ``environment`` is added to this one's."""
    process = CONTEXT.Process(target=main, args=(module, arguments, dict(os.environ) | environment, out, err))
    process.start()
    return process


def run(*arguments: str, module: str = "experiments.run", **environment: str) -> subprocess.CompletedProcess[str]:
    """Wait for a command; AssertionError if it takes longer than `PATIENCE`."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = (str(Path(folder) / name) for name in ("out", "err"))
        process = start(*arguments, module=module, out=out, err=err, **environment)
        process.join(PATIENCE)
        assert process.exitcode is not None, "gave up waiting"
        texts = [Path(path).read_text(encoding="utf-8") for path in (out, err)]
        return subprocess.CompletedProcess(list(arguments), process.exitcode, *texts)
