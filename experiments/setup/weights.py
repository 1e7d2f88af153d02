"""Weight files: where they are, how to fetch them, and what identifies them.

A model's digest is the SHA-256 over the contents of its files. Hashing gigabytes takes a while, so each file's hash is
cached under its path, size and modification time: the identity of a run is known without loading any weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from eval.files import sha256_of_file, write_atomically
from experiments.scenes import WEIGHTS

TEXTS = ("*.json", "*.txt")
NOT_LOADED = ("safety_checker",)
UNWANTED = [f"{part}/*" for part in NOT_LOADED]
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
RESTORE = "restore it with `git checkout -- experiments/scenes/weights`"


@dataclass(frozen=True)
class HubFolder:
    """The configuration and safetensors of a repository on the Hugging Face Hub, in its local cache: no pickles, and
    no code.

    Args:
        name: id of the repository.
        option: how to name a local copy instead, for error messages.
        revision: commit; None: the latest.
        variant: of the weight files, as "fp16".
        weights: False: the configuration alone.
    """

    name: str
    option: str
    revision: str | None = None
    variant: str | None = None
    weights: bool = True

    @property
    def wanted(self) -> list[str]:
        """Patterns of file names."""
        names = f"*.{self.variant}.safetensors" if self.variant else "*model.safetensors"
        return [*TEXTS, *([names] if self.weights else [])]

    def is_here(self) -> bool:
        """Whether the cache has all of it."""
        try:
            self.snapshot(local_files_only=True)
        except Exception:  # the hub's library has many kinds, and those of its HTTP library
            return False
        return True

    def size(self) -> int:
        """Bytes that are missing, as the hub says; OSError if it cannot be asked."""
        from huggingface_hub import HfApi, try_to_load_from_cache
        from huggingface_hub.hf_api import RepoFile
        from huggingface_hub.utils import filter_repo_objects

        if not hub_answers():
            raise OSError("the hub does not answer")
        try:
            tree = HfApi().list_repo_tree(self.name, recursive=True, revision=self.revision)
            found = {item.path: item.size for item in tree if isinstance(item, RepoFile)}
        except Exception as error:
            raise OSError(str(error)) from error
        wanted = filter_repo_objects(found, allow_patterns=self.wanted, ignore_patterns=UNWANTED)
        missing = [
            path
            for path in wanted
            if not isinstance(try_to_load_from_cache(self.name, path, revision=self.revision), str)
        ]
        return sum(found[path] for path in missing)

    def fetch(self) -> Path:
        """The folder, after downloading what is missing of it. Damaged files are renamed, to end in ".damaged", and
        downloaded again.

        Raises:
            FileNotFoundError: it is not complete, and cannot be downloaded.
        """
        try:
            folder = self.snapshot()
            if damaged := self.damaged(folder):
                for path in damaged:
                    path.rename(path.with_name(f"{path.name}.damaged"))
                folder = self.snapshot()
        except Exception as error:
            command = f"hf download {self.name}" + (f" --revision {self.revision}" if self.revision else "")
            files = " ".join(f"--include '{pattern}'" for pattern in self.wanted)
            raise FileNotFoundError(
                f"{self.name} is not in the local cache and cannot be fetched ({type(error).__name__}): on a machine "
                f"with network access run `{command} {files}`, copy the folder it prints, and pass it as {self.option}"
            ) from error
        return folder

    def snapshot(self, **options: Any) -> Path:
        from huggingface_hub import snapshot_download

        options.setdefault("local_files_only", not hub_answers())
        options |= {"allow_patterns": self.wanted, "ignore_patterns": UNWANTED}
        return Path(snapshot_download(self.name, revision=self.revision, **options))

    def damaged(self, folder: Path) -> list[Path]:
        """Files of the cache whose contents are not those that their name promises, which is the hub's SHA-256."""
        files = [path.resolve() for path in folder.rglob("*.safetensors") if path.is_symlink()]
        named = [path for path in files if re.fullmatch("[0-9a-f]{64}", path.name)]
        return [path for path in named if file_digest(path) != path.name]


def hub_answers() -> bool:
    """Whether the hub can be reached. The hub's library tries for half a minute before it gives up, for each model."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception:  # those of its HTTP library, and its own if it is told to be offline
        return False
    return True


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
        return HubFolder(str(repository), "model.path=DIR", revision, variant).fetch()
    place = Path(path)
    if place.suffix in PICKLES:
        raise ValueError(f"{place} is a pickle, which can execute arbitrary code: convert it to safetensors")
    if not place.is_file() and not (place / "model_index.json").is_file():
        remedy = RESTORE if place == WEIGHTS else "give the folder that save_pretrained wrote"
        raise FileNotFoundError(f"no pipeline folder at {place} (no model_index.json): {remedy}")
    return place


def locate_vae(name: str) -> Path:
    """Folder of an autoencoder, local or on the hub."""
    return Path(name) if Path(name).is_dir() else HubFolder(name, "model.vae=DIR").fetch()


def weights_digest(place: Path, vae: Path | None = None, variant: str | None = None) -> str:
    """Hex SHA-256 of a pipeline folder, with this variant of its weight files, or of a single file, and of the
    autoencoder folder that replaces its own, if any.
    """
    digest = folder_digest(place, variant) if place.is_dir() else file_digest(place)
    return digest if vae is None else hashlib.sha256(f"{digest} {folder_digest(vae)}".encode()).hexdigest()


def folder_digest(folder: Path, variant: str | None = None) -> str:
    """Hex SHA-256 over the relative names and contents of the files that a pipeline or an autoencoder loads.

    The cache of the hub may hold more: what other programs, or runs with another ``variant``, have fetched.
    """
    index = folder / "model_index.json"
    parts = sorted(path for path in folder.iterdir() if path.is_dir()) if index.is_file() else [folder]
    files = [path for part in parts for path in loaded_files(part, variant)]
    total = hashlib.sha256()
    for path in [*files, *([index] if index.is_file() else [])]:
        total.update(path.relative_to(folder).as_posix().encode())
        total.update(bytes.fromhex(file_digest(path)))
    return total.hexdigest()


def loaded_files(part: Path, variant: str | None) -> list[Path]:
    """Configuration, vocabulary and weights of one part of a pipeline: of this variant if there are any."""
    if part.name in NOT_LOADED:
        return []
    weights: dict[str | None, list[Path]] = {None: []}
    for path in part.glob("*.safetensors"):
        if found := re.fullmatch(r"(?:.*_)?model(?:\.(\w+))?(?:-\d+-of-\d+)?\.safetensors", path.name):
            weights.setdefault(found[1], []).append(path)
    texts = [path for pattern in TEXTS for path in part.glob(pattern)]
    return sorted([*texts, *weights.get(variant, weights[None])])


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
