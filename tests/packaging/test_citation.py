"""CITATION.cff: the fields that version 1.2.0 of the format asks for, and no value that belongs elsewhere."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
# From the schema of the Citation File Format 1.2.0.
REQUIRED = {"cff-version", "message", "authors", "title"}
OPTIONAL = {"abstract", "type", "license", "keywords", "references", "identifiers", "url"}
PERSON = {"family-names", "given-names"}
REFERENCE = {"type", "title", "authors", "year", "conference", "identifiers", "url"}


@pytest.fixture(scope="module")
def citation():
    return yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_it_has_the_required_fields_and_known_ones_only(citation):
    assert set(citation) >= REQUIRED
    assert set(citation) <= REQUIRED | OPTIONAL
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    for entity in citation["authors"]:
        assert set(entity) == {"name"}  # an entity: the authors are not named


def test_its_licence_is_the_projects(citation):
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'license = "{citation["license"]}"' in text


def test_the_paper_is_a_complete_reference(citation):
    (paper,) = citation["references"]
    assert set(paper) == REFERENCE
    assert paper["type"] == "conference-paper"
    assert all(set(author) == PERSON for author in paper["authors"])
    assert [author["family-names"] for author in paper["authors"]][0] == "He"
    assert len(paper["authors"]) == 10
    assert paper["year"] == 2024
    assert paper["identifiers"] == [{"type": "other", "value": "arXiv:2310.07702"}]
    assert re.fullmatch(r"https://arxiv\.org/abs/2310\.07702", paper["url"])
