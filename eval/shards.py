"""Tar shards in webdataset form, as img2dataset writes them: ``KEY.jpg``, ``KEY.txt`` and ``KEY.json`` per sample.

`read_shard` reads headers only; `read_member` reads one file by its offset, so images can be loaded lazily.

    for sample in read_shard(path):
        if ".jpg" in sample.members:
            image = read_member(path, sample.members[".jpg"])
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")  # lower case


@dataclass(frozen=True)
class ShardMember:
    """A file in a shard: ``size`` bytes from ``offset`` on. ``suffix`` starts at the first dot of the file name."""

    name: str
    suffix: str
    offset: int
    size: int


@dataclass(frozen=True)
class ShardSample:
    """The files of one sample by suffix, spelled as in the shard. ``key`` is their common name up to the first dot."""

    key: str
    members: dict[str, ShardMember] = field(default_factory=dict)

    @property
    def images(self) -> list[ShardMember]:
        """Members with an image's file name extension, in any case."""
        return [member for member in self.members.values() if extension(member).lower() in IMAGE_SUFFIXES]

    def beside(self, member: ShardMember, suffix: str) -> ShardMember | None:
        """The file of the same name with another extension, for example an image's ".txt"."""
        return self.members.get(member.suffix.removesuffix(extension(member)) + suffix)


def extension(member: ShardMember) -> str:
    """From the last dot of the file name on; empty for hidden files without one."""
    return PurePosixPath(member.name).suffix


def read_shard(path: Path) -> Iterator[ShardSample]:
    """Yield the samples of an uncompressed tar file in the order of their first member.

    The files of a sample need not be adjacent. Of two files with the same name the later one counts, as in tar.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, compressed or not a tar file. Raised before the first sample.
    """
    samples: dict[str, ShardSample] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for entry in archive:
                if not entry.isfile():
                    continue
                folder, slash, file_name = entry.name.rpartition("/")
                stem, dot, rest = file_name.partition(".")
                key = folder + slash + stem
                member = ShardMember(entry.name, dot + rest, entry.offset_data, entry.size)
                samples.setdefault(key, ShardSample(key)).members[member.suffix] = member
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"cannot read {path}: {error}; create it again (tar shards are uncompressed)") from error
    yield from samples.values()


def read_member(path: Path, member: ShardMember) -> bytes:
    """The bytes of a member; ValueError if the shard has been truncated since it was listed."""
    with Path(path).open("rb") as stream:
        stream.seek(member.offset)
        data = stream.read(member.size)
    if len(data) != member.size:
        raise ValueError(f"cannot read {member.name} in {path}: {len(data)} of {member.size} bytes; create it again")
    return data
