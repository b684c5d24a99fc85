"""`python -m harness compare`: two result files, or two commits."""

from __future__ import annotations

import argparse

from tqdm import tqdm

from harness import compare

HELP = "two result files, or two commits: improved, regressed or noise"
add_arguments = compare.add_arguments


def run(args: argparse.Namespace) -> None:
    """The verb. Raises UsageError, DeviceMissing, and KilnError where something got slower."""
    with tqdm(disable=None, bar_format="{desc}") as bar:
        compare.command(args, bar.set_description_str)
