"""An independent implementation of the sampling rules, one row at a time in plain Python, and files like those of
real releases.
"""

import hashlib
import html
import io
import json
import random
import re
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from experiments.prompts.build import ManifestSpec, build_manifest

ODD_CAPTIONS = [
    "A Cat",
    "a  cat",
    "\ta cat \n",
    "a&nbsp;cat",
    "Dogs &amp; <b>foxes</b>",
    "dogs & foxes",
    "I <3 you, 2 < 3 > 1",
    "caf\u00e9 \u2014 \u65e5\u672c\u8a9e \U0001f431",
    "caf&eacute; &#8212; \u65e5\u672c\u8a9e\u3000\U0001f431",
    "CAF\u00c9",
    "<br/>",
    "  ",
    "",
    None,
    "eight by",
    "sixteen letters.",
    "x" * 4096,
    "x" * 4097,
]


def reference_mix(x):
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def reference_hash(text, key):
    data = re.sub("[A-Z]", lambda match: match[0].lower(), text).encode()
    value = key
    for start in range(0, len(data), 8):
        value = reference_mix(value ^ int.from_bytes(data[start : start + 8], "little"))
    return reference_mix(value ^ len(data))


def reference_clean(text):
    text = re.sub(r"(?s)</?[A-Za-z][^<>]*>|<!--.*?-->", " ", text)
    return " ".join(html.unescape(text).split())


def reference_prompts(captions, count, seed=0):
    """The prompts of a manifest built from ``captions``, which may be None."""
    key = int.from_bytes(hashlib.sha256(f"prompts:{seed}".encode()).digest()[:8], "little")
    ranked = {}
    for caption in captions:
        if caption is None or len(caption.encode()) > 4096 or not reference_clean(caption):
            continue
        prompt = reference_clean(caption)
        rank = reference_hash(prompt, key)
        ranked[rank] = min(prompt, ranked.get(rank, prompt), key=str.encode)
    return [ranked[rank] for rank in sorted(ranked)][:count]


def random_captions(count, seed=0):
    """Captions made of few words, so that some repeat, mixed with odd ones."""
    rng = random.Random(seed)
    words = ["red", "Blue", "cat", "DOG", "\u00c9t\u00e9", "on", "&amp;", "<i>in</i>", "\u96ea", "snow", ""]
    plain = [" ".join(rng.choices(words, k=rng.randint(1, 6))) for _ in range(count)]
    mixed = plain + ODD_CAPTIONS
    rng.shuffle(mixed)
    return mixed


def write_parquet(path, captions, **columns):
    pq.write_table(pa.table({"TEXT": pa.array(captions, pa.string()), **columns}), path)
    return path


def build(tmp_path, *sources, count, out="prompts.jsonl", **options):
    """Build a manifest; returns its rows and its provenance."""
    provenance = build_manifest(ManifestSpec(tuple(sources), count, **options), tmp_path / out)
    return [json.loads(line) for line in (tmp_path / out).read_text().splitlines()], provenance


def prompts_of(rows):
    return [row["prompt"] for row in rows]


def prompt_id(prompt):
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def manifest_source(path, limit=None):
    """The `prompts` node of a configuration that uses a manifest."""
    return {"source": "manifest", "path": str(path), "limit": limit}


def noise_image(height, width, kind="JPEG"):
    """An encoded image of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


TALL = "schr\u00e4g &amp; hoch".encode()


def image_set():
    """Files of five samples by name, as img2dataset names them: two good samples and three broken ones."""

    def sample(key, data, caption, metadata):
        return {f"{key}.jpg": data, f"{key}.txt": caption, f"{key}.json": metadata}

    def about(**more):
        return json.dumps({"url": "http://a/1", "status": "success", "width": 7, "height": 7, **more}).encode()

    return {
        **sample("000000000", noise_image(40, 60), b"a wide one", about(punsafe=0.1, LANGUAGE="en")),
        **sample("000000001", noise_image(64, 48), TALL, about(punsafe="0.9", LANGUAGE="de")),
        **sample("000000002", noise_image(64, 64)[:-2000], b"truncated", about()),
        **sample("000000003", noise_image(64, 64), b"no metadata", b"{"),
        **sample("000000004", noise_image(64, 64), b"latin \xe9", about()),
    }


def write_image_folder(root):
    """Write a folder like img2dataset with output_format=files."""
    (root / "00000").mkdir(parents=True)
    for name, data in image_set().items():
        (root / "00000" / name).write_bytes(data)
    write_parquet(root / "00000.parquet", ["a wide one"])
    (root / "00000_stats.json").write_text("{}")
    return root


def write_image_tars(root):
    """Write a folder like img2dataset with output_format=webdataset."""
    root.mkdir()
    with tarfile.open(root / "00000.tar", "w") as tar:
        for name, data in image_set().items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    write_parquet(root / "00000.parquet", ["a wide one"])
    (root / "00000_stats.json").write_text("{}")
    return root
