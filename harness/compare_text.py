"""How a comparison is told: a table for a terminal, Markdown for a pull request, JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from harness.commits import Compared
from harness.commits import Report as CommitReport
from harness.compare_files import FileReport, FileRow
from harness.tables import MISSING, table, time_text
from harness.verdicts import ALPHA, Change, Effect

IDENTICAL = "identical"
_COMMIT_HEADERS = (
    "workload",
    "stored",
    "base",
    "other",
    "change",
    "interval",
    "sessions",
    "base against base",
    "verdict",
)
_FILE_HEADERS = ("workload", "base", "other", "change", "interval", "kernel", "verdict")


def text(report: CommitReport | FileReport, *, markdown: bool = False) -> str:
    """The summary, the table and the notes."""
    if isinstance(report, CommitReport):
        head, headers, rows, notes = _commit_parts(report)
    else:
        head, headers, rows, notes = _file_parts(report)
    if not markdown:
        return "\n".join([*head, *([table(headers, rows)] if rows else []), *(f"note: {note}" for note in notes)])
    cells = [[MISSING if cell is None else str(cell).replace("|", "\\|") for cell in row] for row in rows]
    body = tabulate(cells, headers=list(headers), tablefmt="github", disable_numparse=True) if rows else ""
    title = f"**{head[0]}**"
    return "\n\n".join(part for part in (title, *head[1:], body, "\n".join(f"- {note}" for note in notes)) if part)


def change_text(ratio: float) -> str:
    """A ratio as a percentage: 1.15 is +15.0 %, slower."""
    return f"{100 * (ratio - 1):+.1f} %"


def interval_text(interval: tuple[float, float]) -> str:
    """Both ends as percentages."""
    return f"{100 * (interval[0] - 1):+.1f} to {change_text(interval[1])}"


# ---------------------------------------------------------------- commits


def _commit_parts(report: CommitReport) -> tuple[list[str], Sequence[str], list[list[Any]], list[str]]:
    counts = {change: len(report.having(change)) for change in Change}
    identical = sum(one.finding is None for one in report.compared)
    told = [f"{count} {change}" for change, count in counts.items() if count]
    told += [f"{identical} {IDENTICAL}, not measured"] if identical else []
    device = report.device
    head = [
        f"{report.base} → {report.other}: {', '.join(told) or 'no workloads'}",
        f"{device.slug}: {device.description['name']} ({device.description['platform_name']}), {report.seconds:.0f} s",
    ]
    measured = sorted((one for one in report.compared if one.finding), key=_worst_first)
    return head, _COMMIT_HEADERS, [_commit_row(one) for one in measured], _commit_notes(report)


def _worst_first(one: Compared) -> tuple[int, float]:
    assert one.finding is not None
    order = [Change.BROKEN, Change.REGRESSED, Change.MENDED, Change.IMPROVED, Change.FAILED, Change.NOISE]
    return order.index(one.finding.change), -one.finding.effect.ratio if one.finding.effect else 0.0


def _commit_row(one: Compared) -> list[Any]:
    finding = one.finding
    assert finding is not None
    label, stored = one.label, one.workload.split(":")[1]
    name = f"{one.family} {label.partition(' ')[2] or label} {_dims(one.workload)}"
    times = [time_text(finding.base_ns), time_text(finding.other_ns)]
    if finding.effect is None:
        return [name, stored, *times, None, None, None, None, str(finding.change)]
    effect = finding.effect
    control = interval_text(finding.control.interval) if finding.control else None
    change, interval = change_text(effect.ratio), interval_text(effect.interval)
    return [name, stored, *times, change, interval, effect.sessions, control, str(finding.change)]


def _dims(workload: str) -> str:
    return workload.split(":")[3].replace(",", " ")


def _commit_notes(report: CommitReport) -> list[str]:
    notes = [
        f"{one.workload}: {one.finding.change}: {one.finding.log}"
        for one in report.compared
        if one.finding and one.finding.log
    ]
    screened = any(one.finding and one.finding.effect and not one.finding.control for one in report.compared)
    confirmed = any(one.finding and one.finding.control for one in report.compared)
    if screened:
        notes.append(
            "rows without a control were looked at once: 95 % interval, session by session, each with fresh processes"
        )
    if confirmed:
        notes.append(
            "rows with a control looked changed and were measured again; slower or faster is what is so against both "
            f"processes of the base, with at most {ALPHA:.0%} chance of one false verdict in all of them"
        )
    for name, (ratio, most) in report.anchors.items():
        notes.append(
            f"the anchor {name}, one code on both sides, differed by {change_text(ratio)} in the median session, "
            f"by up to {100 * most:.1f} % in one"
        )
    if report.unreached:
        notes.append(f"{len(report.unreached)} workloads were not begun in time: --seconds; nothing is known of them")
    for what, keys in (("base", report.gone), ("other", report.new)):
        if keys:
            notes.append(f"in the {what} alone, so not compared: {', '.join(keys[:5])}{', …' if len(keys) > 5 else ''}")
    if any(one.finding is None for one in report.compared):
        notes.append(
            "identical: the default's source, options and launches are the same in both; --all measures them too"
        )
    return notes


# ---------------------------------------------------------------- files


def _file_parts(report: FileReport) -> tuple[list[str], Sequence[str], list[list[Any]], list[str]]:
    told = [f"{n} {change}" for change in Change if (n := sum(row.change is change for row in report.rows))]
    head = [f"{report.base.path} → {report.other.path}: {', '.join(told)}"]
    notes = [
        "two files hold no paired samples: only the intervals stored in them are used, and what shifted one whole file "
        "can hide or feign a change; compare --commits measures both side by side"
    ]
    if report.scatter:
        notes.append(f"rows of one and the same kernel differ by {interval_text(report.scatter)} between these files")
    else:
        notes.append("too few rows have the same kernel in both files to tell what differs between the files anyway")
    notes += [f"{row.label}: {row.why}" for row in report.rows if row.why]
    for what, keys in ((report.base.path, report.gone), (report.other.path, report.new)):
        if keys:
            notes.append(f"in {what} alone, so not compared: {', '.join(keys[:5])}{', …' if len(keys) > 5 else ''}")
    rows = sorted(report.rows, key=lambda row: (row.change is Change.NOISE, -row.other.median_ns / row.base.median_ns))
    return head, _FILE_HEADERS, [_file_row(row) for row in rows], [*report.base.notes, *report.other.notes, *notes]


def _file_row(row: FileRow) -> list[Any]:
    same = {None: None, True: "same", False: "changed"}[row.same]
    times = [time_text(row.base.median_ns), time_text(row.other.median_ns)]
    ratio = change_text(row.other.median_ns / row.base.median_ns)
    return [row.label, *times, ratio, interval_text(row.interval), same, str(row.change)]


# ---------------------------------------------------------------- JSON


def to_json(report: CommitReport | FileReport) -> dict[str, Any]:
    """For `--json`: times in ns, ratios as other/base."""
    return _commits_json(report) if isinstance(report, CommitReport) else _files_json(report)


def _effect(effect: Effect | None) -> Mapping[str, Any] | None:
    return None if effect is None else {**asdict(effect), "interval": list(effect.interval)}


def _commits_json(report: CommitReport) -> dict[str, Any]:
    def workload(one: Compared) -> dict[str, Any]:
        found = {"workload": one.workload, "label": one.label, "family": one.family, "configs": list(one.configs)}
        if (finding := one.finding) is None:
            return {**found, "verdict": IDENTICAL, "identical": True}
        return {
            **found,
            "identical": one.identical,
            "verdict": str(finding.change),
            "effect": _effect(finding.effect),
            "control": _effect(finding.control),
            "base_ns": finding.base_ns,
            "other_ns": finding.other_ns,
            "way": finding.way,
            "log": finding.log,
        }

    return {
        "kind": "commits",
        "device": report.device.slug,
        "description": dict(report.device.description),
        "base": report.base,
        "other": report.other,
        "alpha": ALPHA,
        "workloads": [workload(one) for one in report.compared],
        "only_base": list(report.gone),
        "only_other": list(report.new),
        "not_begun": list(report.unreached),
        "anchors": {name: {"median": ratio, "most_apart": most} for name, (ratio, most) in report.anchors.items()},
        "seconds": report.seconds,
    }


def _files_json(report: FileReport) -> dict[str, Any]:
    return {
        "kind": "files",
        "base": str(report.base.path),
        "other": str(report.other.path),
        "devices": {name: dict(device) for name, device in report.base.devices.items()},
        "scatter": None if report.scatter is None else list(report.scatter),
        "workloads": [
            {
                "workload": row.key,
                "verdict": str(row.change),
                "ratio": row.other.median_ns / row.base.median_ns,
                "interval": list(row.interval),
                "base_ns": row.base.median_ns,
                "other_ns": row.other.median_ns,
                "same_kernel": row.same,
                "why": row.why,
            }
            for row in report.rows
        ],
        "only_base": list(report.gone),
        "only_other": list(report.new),
    }
