"""The page: one HTML file that fetches nothing, runs no script, and reads in light, in dark and on paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from math import log
from typing import TYPE_CHECKING, Any, TypeVar

from harness.errors import KilnError
from harness.tables import time_text
from harness.telemetry import Recording
from tuner.report import panels, words
from tuner.report.drawing import EXTRA
from tuner.report.importance import QUANTILE, importances
from tuner.report.nouns import Kernel, Measured, Predicted, Study
from tuner.report.rooflines import FAMILIES, number, rate_text, roofline, roofs
from tuner.report.searches import config_text, failures, slices
from tuner.report.trust import checks
from tuner.run import kiln_version

if TYPE_CHECKING:
    from jinja2 import Environment

_K = TypeVar("_K", Measured, Predicted)


@dataclass(frozen=True)
class Figure:
    """A drawing with what explains it."""

    svg: Any  # markup that `drawing.svg` made
    caption: str


def page(studies: Sequence[Study], recordings: Sequence[tuple[str, Recording]]) -> str:
    """The page's text. Raises KilnError where Jinja or Matplotlib is missing."""
    environment = _environment()
    template = environment.from_string(_text("page.html.j2"))
    return template.render(
        style=_safe(_text("page.css")),
        made=datetime.now(UTC).isoformat(timespec="minutes"),
        version=kiln_version(),
        measured=[_study(study, f"s{i}") for i, study in enumerate(studies) if study.measured or study.searches],
        predicted=[_predicted(study, f"p{i}") for i, study in enumerate(studies) if study.predicted],
        recordings=[_recording(path, one, f"t{i}") for i, (path, one) in enumerate(recordings)],
        quantile=QUANTILE,
    )


def _environment() -> Environment:
    try:
        from jinja2 import Environment
    except ImportError as error:
        raise KilnError(f"the page needs Jinja, which is not here: {EXTRA}") from error

    def shown(value: Any) -> Any:  # names and logs come from files, and may hold anything
        return words.clean(value) if type(value) is str else value

    made = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=shown)
    made.globals.update(
        time=time_text, span=words.span_text, ratio=words.ratio_text, rate=rate_text, number=number,
        sizes=words.sizes_text, options=words.options_text, config_words=words.config_words,
        config_text=config_text, phase_name=words.phase_name,
        family_place=lambda name: FAMILIES.index(name) if name in FAMILIES else len(FAMILIES),
    )  # fmt: skip
    return made


def _text(name: str) -> str:
    return files(__package__ or "tuner.report").joinpath(name).read_text(encoding="utf-8")


def _safe(text: str) -> Any:
    """Markup of our own making, which is not escaped again."""
    from markupsafe import Markup

    return Markup(words.clean(text))


def _study(study: Study, name: str) -> dict[str, Any]:
    found = checks(study)
    several = [s for s in study.searches if len(s.attempts) > 1 and any(a.ns or a.at_least_ns for a in s.attempts)]
    labels = {kernel.workload.key: kernel for kernel in study.measured}
    return {
        "id": name,
        "study": study,
        "outcome": words.outcome(study.measured),
        "checks": found,
        "rounds_told": any(kernel.rounds is not None for kernel in study.measured),
        "groups": list(by_model(study.models, study.measured)),
        "bars": Bars.of(study.measured),
        "roofline": _safe(roofline(study, f"{name}-roof", study.measured)) if study.measured else None,
        "roofs": roofs(study),
        "searches": study.searches,
        "titles": {s.workload.key: _title(s.workload.key, labels, s.workload.label) for s in study.searches},
        "convergence": [
            _safe(panels.convergence(s, f"{name}-c{i}", _title(s.workload.key, labels, s.workload.label)))
            for i, s in enumerate(several)
        ],
        "several": several,
        "importances": importances(study.searches),
        "slices": list(_slices(study, name, labels)),
        "failures": failures(study.searches),
        "conditions": words.conditions(study),
    }


def _title(key: str, labels: Mapping[str, Kernel], otherwise: str) -> str:
    kernel = labels.get(key)
    family, weights, _, dims, *_ = (*key.split(":"), "", "", "", "")
    name = kernel.label if kernel else otherwise
    return f"{family} {name} {'' if weights == '-' else weights} {dims.replace(',', ' ')}".replace("  ", " ")


def _slices(study: Study, name: str, labels: Mapping[str, Kernel]) -> Iterator[tuple[str, list[Figure]]]:
    for i, search in enumerate(study.searches):
        title = _title(search.workload.key, labels, search.workload.label)
        drawn = [
            Figure(
                _safe(panels.slice_panel(one, search.workload.family, f"{name}-l{i}-{j}", f"{title}, {one.param}")),
                panels.slice_text(one),
            )
            for j, one in enumerate(slices(search))
        ]
        if drawn:
            yield title, drawn


def _predicted(study: Study, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "study": study,
        "groups": list(by_model(study.models, study.predicted)),
        "roofline": _safe(roofline(study, f"{name}-roof", study.predicted)),
        "roofs": roofs(study),
        "checks": checks(study),
        "conditions": words.conditions(study),
    }


def _recording(path: str, recording: Recording, name: str) -> dict[str, Any]:
    title = f"Telemetry, {path}"
    return {
        "path": path,
        "recording": recording,
        "seconds": (recording.end_ns - recording.start_ns) / 1e9,
        "plot": _safe(panels.telemetry(recording, name, title)) if panels.shown_signals(recording) else None,
    }


def by_model(models: Sequence[str], found: Sequence[_K]) -> Iterator[tuple[str, list[_K]]]:
    """The kernels of each model in the study's order, then those that no model sheet claims."""
    for model in models:
        if mine := [kernel for kernel in found if model in kernel.parts]:
            yield model, mine
    if rest := [kernel for kernel in found if not set(models) & set(kernel.parts)]:
        yield "", rest


@dataclass(frozen=True)
class Bars:
    """The scale of the ratios' bars in one table: logarithmic, 1 always on it."""

    low: float
    high: float

    @staticmethod
    def of(found: Sequence[Measured]) -> Bars:
        """What holds every ratio and interval."""
        ends = [end for k in found for end in (k.ratio or 1.0, *(k.ratio_interval or ()))]
        return Bars(min([0.9, *ends]), max([1.25, *ends]))

    def place(self, ratio: float) -> float:
        """Where a ratio lies, in percent of the bar's width."""
        return round(100 * log(ratio / self.low) / log(self.high / self.low), 2)
