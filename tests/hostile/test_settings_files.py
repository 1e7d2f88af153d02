"""Files of settings, whatever they hold: loaded, or refused in one line that names the file."""

from random import Random

import pytest
import yaml

from scalecrafter.cli import one_line
from scalecrafter.settings import SHIPPED, Settings, available_settings
from tests.hostile.inputs import BOTH, damaged, error_of, text

DEEP = "[" * 600  # each level takes a parser two calls of the thousand that Python allows
LEVELS = [f"&{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)]
BOMB = f"[&a [x, x, x, x, x, x, x, x, x], {', '.join(LEVELS)}]"  # a billion, if it is written out
KNOWN = [
    f"tau: {10**400}",
    f"dispersion_eta: {10**400}",
    f"dilation: {{conv_in: {10**400}}}",
    f"dilation: {{conv_in: [{10**400}, 2]}}",
    f"tau: {'9' * 5000}",
    f"tau: {DEEP}",
    DEEP,
    "dispersed: [[1]]",
    "dispersed: [{a: 1}]",
    "dispersed: &a [*a]",
    "dispersed: {conv_in: 2}",
    "? [1]\n: 2",
    "1: 2\nx: 3\nnull: 4",
    "dilation: {null: 2, 3: 4, [1]: 2}",
    "dilation: {mid_block: .nan}",
    "dilation: {mid_block: .inf}",
    f"freeu: {{b1: {10**400}, b2: 1, s1: 1, s2: 1}}",
    "freeu: {b1: .nan, b2: 1, s1: 1, s2: 1}",
    "freeu: {1: 2}",
    "freeu: [1, 2]",
    "freeu: {b1: 1, b2: 1, s1: 1, s2: 1, form: [1]}",
    "freeu: {b1: 1, b2: 1, s1: 1, s2: 1, form: {a: 1}}",
    "parts: [{weights: [1, 1], settings: 3}]",
    "parts: [{weights: 1, settings: {}}]",
    "parts: [{weights: [1], settings: {}}]",
    "parts: [{weights: [.nan, x], settings: {}}]",
    "parts: &p [{weights: [1, 1], settings: {parts: *p}}]",
    "parts: [{weights: [1, 1], settings: ../../../etc/passwd}]",
    "parts: []\nscale: [1]",
    f"parts: []\nscale: {10**400}",
    "parts: {}",
    "!!python/object/apply:os.system [touch /tmp/x]",
    "!!python/name:os.system",
    "tau: !!binary x",
    "a: 2001-99-99",
    "tau: 0x_",
    "tau: 1:99:99",
    "tau: !!int a",
    "dilation: !!omap [a]",
    "dilation: !!set {a, b}",
    "<<: 3",
    "<<: [1]",
    BOMB,
    *(f"{name}: {BOMB}" for name in ("tau", "progressive", "dispersed", "dispersed_size", "dispersion_eta", "freeu")),
    f"dilation: {{conv_in: {BOMB}}}",
    f"freeu: {{b1: {BOMB}, b2: 1, s1: 1, s2: 1}}",
    f"freeu: {{b1: 1, b2: 1, s1: 1, s2: 1, form: {BOMB}}}",
    f"parts: [{BOMB}]",
    f"parts: {{a: {BOMB}}}",
    f"parts: [{{weights: {BOMB}, settings: {{}}}}]",
    f"parts: []\nscale: {BOMB}",
    "\x00",
    "\ufffe",
    "",
    "null",
    "---\n---\n",
]


def random_yaml(random: Random) -> bytes:
    """Shipped settings that are damaged, or with hostile values."""
    name = random.choice(available_settings())
    shipped = (SHIPPED / f"{name}.yaml").read_bytes()
    if random.random() < 0.5:
        return damaged(random, shipped)
    values = yaml.safe_load(shipped)
    key = random.choice([*values, "dispersed", "freeu", "parts", "scale", text(random)])
    values[key] = random.choice(
        [text(random), [text(random)], {text(random): 2}, {text(random): text(random)}, None, -1, 1e308, 10**300, True]
    )
    return yaml.safe_dump(values, allow_unicode=True).encode("utf-8", "surrogatepass")


def load(path, content: bytes) -> None:
    path.write_bytes(content)
    error = error_of(lambda: Settings.load(path))
    if error is not None:
        assert str(path) in str(error)
        assert len(one_line(error)) < 4100


@pytest.mark.parametrize("content", KNOWN, ids=range(len(KNOWN)))
def test_known_attacks(tmp_path, content):
    load(tmp_path / "mine.yaml", content.encode())


@pytest.mark.parametrize("count", BOTH)
def test_random_files(tmp_path, count):
    random = Random(17)
    for _ in range(4 * count):
        load(tmp_path / "mine.yaml", random_yaml(random))
