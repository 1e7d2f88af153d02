"""`python -m experiments.fetch [experiment=NAME] [overrides]`: every weight file that these runs need: the model,
Inception, CLIP, VGG. Lists sizes first, continues what was interrupted, and checks hashes. Without an experiment, that
of `make reproduce-table` for the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.setup.command_line import command, overrides_of
from experiments.setup.compose import compose_config
from experiments.setup.grid import named_experiment, read_grid

EMBEDDED = "model=scenes"


def main(arguments: Sequence[str]) -> None:
    """List what is needed, then fetch what is missing; FileNotFoundError with all that could not be fetched."""
    overrides = overrides_of(arguments, "experiments.fetch", str(__doc__))
    if any(line.startswith("model=") and line != EMBEDDED for line in overrides):
        overrides = named_experiment(overrides, default="paper")
    rows = read_grid(named_experiment(overrides)).rows
    # Imported here because torch and diffusers take seconds: help and errors of the command line come at once.
    from experiments.fetch.required import caches, weights_of

    needed = list(dict.fromkeys(sum(weights_of([compose_config(row.overrides) for row in rows]), [])))
    if not needed:
        print("Nothing to fetch: these runs need no weights but those that are here.")
        return
    missing = [weights for weights in needed if not weights.is_here()]
    sizes = {weights: size_of(weights) for weights in missing}
    for weights in needed:
        print(f"{weights.name}: {in_words(sizes[weights]) if weights in sizes else 'here'}")
    print(f"To fetch: {in_words(sum(size or 0 for size in sizes.values()))}, to {caches()}")
    failures = []
    for weights in needed:  # what is here as well, whose hash is checked
        try:
            weights.fetch()
        except (ValueError, OSError) as error:
            failures.append(str(error))
    if failures:
        raise FileNotFoundError(f"{len(failures)} of {len(needed)} could not be fetched: {'; '.join(failures)}")
    print("All of it is here.")


def size_of(weights: Any) -> int | None:
    """Bytes to fetch; None if nobody can be asked."""
    try:
        return int(weights.size())
    except OSError:
        return None


def in_words(size: int | None) -> str:
    return "size unknown, no connection" if size is None else f"{size / 1e9:.2f} GB"


if __name__ == "__main__":
    command(main)
