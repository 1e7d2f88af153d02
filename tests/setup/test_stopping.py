"""SIGTERM and SIGINT: at once, after what must not be broken off, and where a library does not return."""

import ctypes
import os
import signal
import threading
import time

import pytest

from experiments.setup import stopping
from experiments.setup.stopping import Stopped, stoppable, unbroken
from tests.commands import CONTEXT, PATIENCE


def wait(pipe):
    with stoppable():
        pipe.send("ready")
        while True:
            time.sleep(0.01)


def save(pipe):
    with stoppable(), unbroken():
        pipe.send("ready")
        time.sleep(0.5)
        pipe.send("saved")
    pipe.send("went on")


def never_return(pipe):
    """In a library's call, which no signal interrupts (it waits for itself); ready once it is in there."""
    stopping.GRACE = 0.5
    library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(256)
    ready = threading.Timer(1.0, pipe.send, ["ready"])
    ready.daemon = True
    with stoppable():
        ready.start()
        library.pthread_mutex_init(mutex, None)
        library.pthread_mutex_lock(mutex)
        library.pthread_mutex_lock(mutex)


def ignore(pipe):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stoppable():
        pipe.send("ready")
        time.sleep(0.5)
    pipe.send("went on")


def target(action, pipe):
    try:
        action(pipe)
    except Stopped as stop:
        os._exit(100 + stop.number)


def exit_code(action, number) -> tuple[int | None, list[str]]:
    """Of a process that runs ``action`` and gets the signal once it is ready, and what it has said after that."""
    here, there = CONTEXT.Pipe()
    process = CONTEXT.Process(target=target, args=(action, there))
    process.start()
    assert here.poll(PATIENCE)
    assert here.recv() == "ready"
    os.kill(process.pid, number)
    process.join(PATIENCE)
    said = []
    there.close()
    while here.poll():
        try:
            said.append(here.recv())
        except EOFError:
            break
    return process.exitcode, said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_where_the_process_is(number):
    assert exit_code(wait, number) == (100 + number, [])


def test_what_is_unbroken_is_completed_first():
    assert exit_code(save, signal.SIGTERM) == (100 + signal.SIGTERM, ["saved"])


def test_a_call_that_does_not_return_is_ended():
    assert exit_code(never_return, signal.SIGTERM) == (128 + signal.SIGTERM, [])


def test_an_ignored_signal_stays_ignored():
    assert exit_code(ignore, signal.SIGINT) == (0, ["went on"])


def test_handlers_are_restored():
    before = [signal.getsignal(number) for number in stopping.SIGNALS]
    with stoppable():
        assert signal.getsignal(signal.SIGTERM) is stopping.on_signal
    assert [signal.getsignal(number) for number in stopping.SIGNALS] == before


def test_a_launchers_handlers_stay(monkeypatch):
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    before = signal.getsignal(signal.SIGTERM)
    with stoppable():
        assert signal.getsignal(signal.SIGTERM) is before
