"""`python -m harness tables`: Transformer-Lite's tables on the device at hand."""

from __future__ import annotations

import argparse

from harness import papers
from harness.devices import resolve
from harness.errors import KilnError
from harness.tables import json_text, say
from harness.verbs import common

HELP = "Transformer-Lite's tables on this device, beside the published ones"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's options."""
    common.add_device(parser)
    add = parser.add_argument
    add("--table", action="extend", nargs="+", choices=papers.TABLES, help="kv: figure 3 (default all)")
    common.add_documents(parser)
    add("--compute", default="fp32", choices=("fp32", "fp16"), help="arithmetic (default %(default)s)")
    common.add_json(parser)


def run(args: argparse.Namespace) -> None:
    """The verb. Raises DeviceMissing, and KilnError where something has no time."""
    wanted = args.table or papers.TABLES
    choice = resolve(args.device) if papers.needs_device(wanted) else None
    documents = common.documents(args.config, choice)
    with common.progress("step") as tell:
        found = papers.measure(wanted, choice, documents, args.compute, tell)
    say(json_text(papers.to_json(found)) if args.json else papers.text(found))
    if found.failed:
        raise KilnError(f"{found.failed} of {len(found.contestants)} configurations have no time; the notes say why")
    if found.missing and args.table:
        raise KilnError(found.missing)
