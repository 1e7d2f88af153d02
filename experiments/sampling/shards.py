"""Processes that generate shards of one run and share nothing but its folder.

With locks, all write into the run folder. Each shard has a lock of its own; whoever generates the whole run, or merges
the shards, holds the run's lock and all of theirs, and a shard starts while nobody holds the run's. The locks are
flock's: they hold between the processes of one machine, and between machines where the file system passes them on.

Without locks, each shard fills a folder of its own, ``shards/I-of-N`` in the run folder, and a later process that is
alone gathers them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from eval.files import sha256_of_file
from experiments.sampling.manifest import FEATURES, NAME, QUARANTINE, manifest_lines, set_aside, unused
from experiments.setup.processes import Shard

APART = "shards"
WAIT = 1.0  # seconds between attempts at a lock that is held


def run_lock(folder: Path) -> FileLock:
    """The lock of a run; OSError where the file system has none."""
    path = folder / ".lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    except OSError as error:
        raise OSError(f"the file system of {folder} has no locks ({error.strerror}): set locks=false") from error
    finally:
        os.close(descriptor)
    return FileLock(path)


@contextmanager
def whole_run(folder: Path, locks: bool = True) -> Iterator[None]:
    """Exclusive use of the folder: waits until no shard is being generated. Without locks nothing is awaited."""
    with ExitStack() as held:
        if locks:
            held.enter_context(run_lock(folder))
            for path in sorted(folder.glob(".lock-*")):
                held.enter_context(FileLock(path))
        yield


@contextmanager
def one_shard(folder: Path, shard: Shard) -> Iterator[None]:
    """Beside other shards: waits until nobody generates this one, or the whole."""
    own = FileLock(folder / f".lock-{shard}")
    while True:
        with run_lock(folder):
            try:
                own.acquire(timeout=0)
                break
            except Timeout:
                pass
        time.sleep(WAIT)
    try:
        yield
    finally:
        own.release()


def shard_folders(folder: Path) -> list[Path]:
    """The folders of shards that were generated without locks and are not gathered yet."""
    return sorted(path for path in folder.glob(f"{APART}/*") if path.is_dir())


def gather_shards(folder: Path) -> None:
    """Move what `shard_folders` hold into the run folder. After a crash on the way, the next call goes on: manifests
    go first, and an image counts from when it is where its line says.
    """
    for part in shard_folders(folder):
        for name in (NAME, NAME.replace("manifest", "costs")):
            if (part / name).is_file():
                stem, suffix = name.split(".")
                (part / name).rename(unused(folder / f"{stem}-{part.name}.{suffix}"))
        for path in [*part.glob("*.tmp"), *part.glob("images/*.tmp")]:
            path.unlink()
        shutil.rmtree(part / FEATURES, ignore_errors=True)  # stamps of images at their old place
        recorded = {(record.file, record.sha256) for record in manifest_lines(folder)}
        (folder / "images").mkdir(exist_ok=True)
        for image in sorted(part.glob("images/*")):
            gather_image(image, folder, recorded)
        for image in sorted(part.glob(f"{QUARANTINE}/*")):
            set_aside(image, folder)
        with suppress(OSError):  # it holds something else, which stays
            for each in (part / "images", part / QUARANTINE, part):
                if each.is_dir():
                    each.rmdir()
    with suppress(OSError):
        (folder / APART).rmdir()


def gather_image(image: Path, folder: Path, recorded: set[tuple[str, str]]) -> None:
    """Move an image into the run folder; one that is there already and has a record stays."""
    place = folder / "images" / image.name
    if not place.exists():
        image.rename(place)
        return
    here = sha256_of_file(place)
    if here == sha256_of_file(image):
        image.unlink()
    elif (f"images/{image.name}", here) in recorded:
        set_aside(image, folder)
    else:
        set_aside(place, folder)
        image.rename(place)
