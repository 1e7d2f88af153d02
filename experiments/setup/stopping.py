"""Stopping a command: SIGTERM and SIGINT end it within seconds, and the same command goes on where it stopped.

The signal raises `Stopped` wherever the process is, which drops the batch in flight; what is `unbroken`, as the saving
of a finished batch, is completed first. A process that does not come back from a library's call is ended after
`GRACE` seconds, which every file on disk survives as it does a crash. This module loads neither torch nor diffusers.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
GRACE = 8.0  # seconds from a signal to the end of the process at the latest


class Stopped(KeyboardInterrupt):
    """A signal asks the process to end. It is no `Exception`: it must not pass for a job that failed."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}: the same command goes on from here"


class State:
    """Of this process: how many `unbroken` blocks it is in, the signal that waits for their end, who watches."""

    depth = 0
    waiting: int | None = None
    watching = False


def on_signal(number: int, frame: FrameType | None) -> None:
    """Stop now, or at the end of what is `unbroken`."""
    if State.depth:
        State.waiting = number
    else:
        raise Stopped(number)


@contextmanager
def unbroken() -> Iterator[None]:
    """Complete what is inside before a signal acts."""
    State.depth += 1
    try:
        yield
    finally:
        State.depth -= 1
    if State.waiting is not None and not State.depth:
        number, State.waiting = State.waiting, None
        raise Stopped(number)


@contextmanager
def stoppable() -> Iterator[None]:
    """Let `SIGNALS` raise `Stopped` inside. A signal that is ignored stays so, as behind nohup, and under SLURM the
    launcher's own handlers stay: they requeue the job.
    """
    mine = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    main = threading.current_thread() is threading.main_thread()
    if State.watching or not mine or not main or "SUBMITIT_EXECUTOR" in os.environ:
        yield
        return
    receiving, sending = socket.socketpair()
    sending.setblocking(False)
    ended = threading.Event()
    before = {number: signal.signal(number, on_signal) for number in mine}
    fd = signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=watch, args=(receiving, ended), daemon=True, name="signals").start()
    State.watching = True
    try:
        yield
        ended.set()
    except Exception:
        ended.set()
        raise  # after `Stopped` the watch goes on until the process has ended
    finally:
        State.watching = False
        signal.set_wakeup_fd(fd)
        for number, handler in before.items():
            signal.signal(number, handler)
        sending.close()


def watch(receiving: socket.socket, ended: threading.Event) -> None:
    """End the process `GRACE` seconds after a signal unless it has ``ended`` what was stoppable by then."""
    with receiving:
        while received := receiving.recv(1):
            if received[0] in SIGNALS:
                if not ended.wait(GRACE):
                    os._exit(128 + received[0])
                return
