"""Prompts from the files of benchmarks: COCO's captions (JSON), and tables with a column of prompts (TSV), as
PartiPrompts.

Their order means nothing, or goes by category. Prompts come in the order of a hash of their ids instead, so that any
limit is a random sample, and a smaller one the beginning of a larger one.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from experiments.prompts.build import prompt_id
from experiments.prompts.checks import is_text
from experiments.prompts.metadata import open_source
from experiments.prompts.text import clean_caption


def sampled_captions(path: Path) -> list[tuple[str, str]]:
    """(id, text) of every prompt in the order in which limits take them; ValueError if the file is not of its kind."""
    found = read_coco(path) if path.suffix.lower() == ".json" else read_table(path)
    return sorted(found.items(), key=lambda pair: hashlib.sha256(pair[0].encode()).hexdigest())


def read_coco(path: Path) -> dict[str, str]:
    """One caption of each image, the one with the smallest id. Ids are those of COCO's file names: twelve digits."""
    captions: dict[int, tuple[int, str]] = {}
    try:
        for each in json.loads(path.read_bytes())["annotations"]:
            text = clean_caption(each["caption"])
            image, candidate = each["image_id"], (each["id"], text)
            if not (type(image) is int and type(each["id"]) is int and 0 <= image < 2**63):
                raise ValueError("ids are not whole numbers of 64 bits")
            if not is_text(text):
                raise ValueError(f"the caption of image {image} is not Unicode")
            if text and candidate < captions.get(image, (each["id"] + 1, "")):
                captions[image] = candidate
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise ValueError(
            f"{path} does not hold COCO's captions ({type(error).__name__}: {error}): it needs annotations with "
            "image_id, id and caption, as captions_val2014.json"
        ) from error
    return {f"{image:012d}": text for image, (_, text) in captions.items()}


def read_table(path: Path) -> dict[str, str]:
    """Each different prompt of a table with a header, whose column is called prompt, text or caption, by its hash."""
    try:
        path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}): save it as such") from error
    texts: list[str] = []
    broken = 0
    for batch in open_source(path, None).read():
        texts += [clean_caption(text or "") for text in batch.rows.column("prompt").to_pylist()]
        broken += sum(batch.broken.values())
    if broken:
        raise ValueError(f"{broken} rows of {path} have another number of columns than its header: correct them")
    return {prompt_id(text): text for text in texts if text}
