"""`python -m tuner report [FILE…]`: the page, the Markdown of a pull request, or the figures as JSON."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from harness.errors import KilnError, UsageError
from harness.tables import json_text, say
from tuner.report.markdown import markdown
from tuner.report.page import page
from tuner.report.sources import RESULTS, find
from tuner.report.study import study_of
from tuner.report.trust import checks
from tuner.report.words import as_json

OUT = RESULTS / "local" / "report.html"


def main(words: Sequence[str]) -> None:
    """The command. Raises UsageError where nothing is found, KilnError naming a file that is damaged."""
    parser = argparse.ArgumentParser(
        prog="python -m tuner report",
        description="One page about what was tuned, on what, how much faster it is, and why to believe it.",
        epilog="The page fetches nothing: it can be sent by mail or kept beside a release.",
    )
    add = parser.add_argument
    add(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="tuned configs, journals, telemetry recordings or folders of them (default: results and results/local)",
    )
    add("--out", type=Path, metavar="F.html", help=f"the page (default {OUT}; with --markdown or --json: none)")
    add("--markdown", nargs="?", const=Path("-"), type=Path, metavar="F.md", help="tables for a pull request; - prints")
    add("--json", action="store_true", help="print every kernel's figures as JSON")
    args = parser.parse_args(words)
    for path in (args.out, args.markdown):
        if path is not None and path.is_dir():
            raise UsageError(f"{path} is a folder; name a file to write")
    sources = find(args.files)
    studies = [study_of(pair) for pair in sources.pairs]
    recordings = [(str(path), recording) for path, recording in sources.recordings]
    out = args.out or (None if args.markdown or args.json else OUT)
    if out is not None:
        _write(out, page(studies, recordings))
    if args.markdown is not None and args.markdown != Path("-"):
        _write(args.markdown, markdown(studies))
    elif args.markdown is not None:
        say(markdown(studies).rstrip())
    if args.json:
        say(json_text([as_json(study, checks(study)) for study in studies]))
    elif args.markdown != Path("-"):
        say(f"wrote {' and '.join(str(path) for path in (out, args.markdown) if path is not None)}")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise KilnError(f"{path} cannot be written: {error.strerror}; choose another place") from error
