"""Weight files: where they are, how to fetch them, and what identifies them.

A model's digest is the SHA-256 over the contents of its files. Hashing gigabytes takes a while, so each file's hash is
cached under its path, size and modification time: the identity of a run is known without loading any weights.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

from eval.files import sha256_of_file, write_atomically
from experiments.scenes import WEIGHTS

TEXTS = ("*.json", "*.txt")
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
RESTORE = "restore it with `git checkout -- experiments/scenes/weights`"


def locate_weights(
    path: str | None, repository: str | None = None, revision: str | None = None, variant: str | None = None
) -> Path:
    """Folder or single file of a pipeline's weights.

    Args:
        path: local folder or single-file checkpoint; takes precedence.
        repository: id on the Hugging Face Hub, fetched at most once.
        revision: commit of the repository.
        variant: of its weight files, as "fp16".

    Raises:
        FileNotFoundError: nothing there, and nothing that can be fetched.
        ValueError: neither is given, or it is a pickle.
    """
    if path is None and repository is None:
        raise ValueError("model.path is missing: give the folder of a pipeline, or a model that has an id")
    if path is None:
        return fetch(str(repository), revision, variant, "model.path=DIR")
    place = Path(path)
    if place.suffix in PICKLES:
        raise ValueError(f"{place} is a pickle, which can execute arbitrary code: convert it to safetensors")
    if not place.is_file() and not (place / "model_index.json").is_file():
        remedy = RESTORE if place == WEIGHTS else "give the folder that save_pretrained wrote"
        raise FileNotFoundError(f"no pipeline folder at {place} (no model_index.json): {remedy}")
    return place


def locate_vae(name: str) -> Path:
    """Folder of an autoencoder, local or on the hub."""
    return Path(name) if Path(name).is_dir() else fetch(name, None, None, "model.vae=DIR")


def fetch(repository: str, revision: str | None, variant: str | None, option: str) -> Path:
    """Snapshot folder of a hub repository's configuration and safetensors, from the local cache or the network.

    Args:
        option: how to name a local copy instead, for the error message.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    weights = f"*.{variant}.safetensors" if variant else "*model.safetensors"
    wanted, unwanted = [*TEXTS, weights], ["safety_checker/*"]
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=wanted, ignore_patterns=unwanted))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        command = f"hf download {repository}" + (f" --revision {revision}" if revision else "")
        files = " ".join(f"--include '{pattern}'" for pattern in wanted)
        raise FileNotFoundError(
            f"{repository} is not in the local cache and cannot be fetched ({type(error).__name__}): on a machine "
            f"with network access run `{command} {files}`, copy the folder it prints, and pass it as {option}"
        ) from error


def weights_digest(place: Path, vae: Path | None = None) -> str:
    """Hex SHA-256 of a pipeline folder or single file, and of the autoencoder folder that replaces its own, if any."""
    digest = folder_digest(place) if place.is_dir() else file_digest(place)
    return digest if vae is None else hashlib.sha256(f"{digest} {folder_digest(vae)}".encode()).hexdigest()


def folder_digest(folder: Path) -> str:
    """Hex SHA-256 over the relative names and contents of the files that a pipeline or an autoencoder loads."""
    index = folder / "model_index.json"
    total = hashlib.sha256()
    for path in [*sorted(folder.glob("*/*")), index] if index.is_file() else sorted(folder.glob("*")):
        if path.suffix in {".json", ".safetensors", ".txt"}:
            total.update(path.relative_to(folder).as_posix().encode())
            total.update(bytes.fromhex(file_digest(path)))
    return total.hexdigest()


def file_digest(path: Path) -> str:
    """Hex SHA-256 of a file, from the cache if the file was hashed before and not touched since."""
    stat = path.stat()
    return _hash(str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@cache
def _hash(path: str, size: int, modified: int, changed: int) -> str:
    file, stamp = cache_file(), f"{path} {size} {modified} {changed}"
    known = read_cache(file)
    if stamp not in known:
        known[stamp] = sha256_of_file(Path(path))
        with suppress(OSError):  # a read-only home: hash again next time
            write_atomically(file, json.dumps(known))
    return known[stamp]


def cache_file() -> Path:
    """Hashes of this user's weight files."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scalecrafter" / "digests.json"


def read_cache(file: Path) -> dict[str, str]:
    """Empty if there is none, or it is damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
