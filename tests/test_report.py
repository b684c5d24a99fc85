"""`python -m tuner report`: the page holds what it should and nothing that runs, Markdown and JSON say the same."""

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from report_samples import GATE as GATE_JOB
from report_samples import HOSTILE, recording, records, study, trial, trials, write

from harness.errors import KilnError
from kernels.spec import Measurement, Verdict
from tuner.cli import main
from tuner.report import page as pages
from tuner.report import panels
from tuner.report.drawing import figure, svg
from tuner.report.nouns import Study
from tuner.report.page import Bars, page
from tuner.report.rooflines import roofs
from tuner.report.sources import find
from tuner.report.study import study_of
from tuner.report.words import span_text

for needed in ("matplotlib", "jinja2"):
    pytest.importorskip(needed, reason="the report extra is not installed")

RESULTS = Path(__file__).parent.parent / "results"


def read(*paths: Path) -> list[Study]:
    return [study_of(pair) for pair in find(paths).pairs]


class Tags(HTMLParser):
    """Every tag with its attributes, ids, and the text outside of styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with everything in it: a journal full of hostile logs, telemetry, a predicted document."""
    folder = tmp_path_factory.mktemp("report")
    write(folder / "a.journal.jsonl", records())
    (folder / "t.json").write_text(json.dumps(recording()))
    found = find([folder, RESULTS / "mali-g720.json"])
    return page([study_of(pair) for pair in found.pairs], [(str(path), one) for path, one in found.recordings])


def test_the_page_is_whole_html_that_fetches_and_runs_nothing(whole: str) -> None:
    found = Tags(whole)
    assert not found.unbalanced
    assert not found.open
    names = {tag for tag, _ in found.tags}
    assert not names & {"script", "iframe", "object", "embed", "img", "base", "form"}
    for tag, attributes in found.tags:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href", "xlink:href", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:,")), attributes
    styles = re.findall(r"<style[^>]*>(.*?)</style>", whole, re.DOTALL)
    assert not any("@import" in style or "url(" in style for style in styles)
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"url\(#([^)]+)\)", whole)) | {a["xlink:href"] for _, a in found.tags if "xlink:href" in a}
    assert {str(name).removeprefix("#") for name in used} <= set(ids)


def test_the_page_answers_first_and_shows_every_figure(whole: str) -> None:
    text = Tags(whole).text
    for said in ("what was tuned", "on what", "how much faster", "may I trust it?", "1 of 2 kernels surely faster"):
        assert said in text
    for kind in ("roofline", "telemetry"):
        assert re.search(rf'<figure class="[^"]*{kind}[^"]*"><svg', whole), kind
    for kind in ("convergence", "slices"):
        assert re.search(rf'class="panels {kind}">\s*<figure>.*?<svg', whole, re.DOTALL), kind
    assert "PED-ANOVA" in text
    assert "BLOCKS" in text
    assert "build_failed" in text
    assert "EACCES: /sys/gpuclk <b>" in text  # unavailable with its reason, and escaped
    titles = re.findall(r"<svg [^>]*aria-labelledby=\"(\S+) (\S+)\"", whole)
    assert titles
    for title, about in titles:
        assert f'<title id="{title}">' in whole
        assert f'<desc id="{about}">' in whole


def test_hostile_logs_stay_text(whole: str) -> None:
    assert "<script>" not in whole
    assert "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;" in whole
    assert "\x1b" not in whole
    assert "\u202e" not in whole


def test_predictions_are_apart_and_look_it(whole: str) -> None:
    before, after = whole.split('<section class="predicted"')
    assert "Mali-G720" in before  # named as not measured
    assert "≈" not in before
    assert "predicted GFLOPS" not in before
    section = after.split("</section>")[0]
    assert "Predicted, not measured" in section
    assert "predicted GFLOPS" in section
    assert "default / tuned" not in section
    assert section.count("≈") == 2 * 52  # time and rate of every entry


def test_every_kernel_on_the_roofline_says_what_it_is(whole: str) -> None:
    drawn = re.search(r'<svg [^>]*aria-labelledby="s0-roof-title.*?</svg>', whole, re.DOTALL)
    assert drawn is not None
    tips = re.findall(r'<g id="s0-roof-k\d+"><title>(.*?)</title>', drawn[0])
    assert [tip.partition(": ")[0] for tip in tips] == [
        "gemv_decode gate/up int4/g128 M=1 N=16384 K=2048",
        "gemv_decode down int4/g128 M=1 N=2048 K=16384",
    ]
    assert "400 µs" in tips[0]
    assert "25 % of its limit (bandwidth)" in tips[0]


def test_colours_follow_the_page(whole: str) -> None:
    drawn = "".join(re.findall(r"<svg.*?</svg>", whole, re.DOTALL))
    assert "var(--ink)" in drawn
    assert "var(--family-0)" in drawn
    assert not re.search(r"(fill|stroke): #[0-9a-f]{6}", drawn)  # no colour that a dark page would hide
    assert "prefers-color-scheme: dark" in whole
    assert "@media print" in whole


def test_hostile_names_are_drawn_as_text() -> None:
    made, (axes,) = figure(2, 1)
    axes.set_title("$\\frac{<b>&}$")
    text = svg(made, "f", HOSTILE, HOSTILE)
    assert "<script>" not in text
    assert "$\\frac{&lt;b&gt;&amp;}$" in text


# ---------------------------------------------------------------- what figures show


def test_convergence_is_the_best_so_far(tmp_path: Path) -> None:
    (found,) = read(write(tmp_path / "a.journal.jsonl", [study(), *trials(GATE_JOB)]))
    (search,) = found.searches
    line = panels.best_so_far(search)
    assert [n for n, _ in line] == [a.number for a in search.attempts]
    assert all(earlier >= later for (_, earlier), (_, later) in pairwise(line))
    assert line[-1][1] == 400_000.0
    failed = trial(GATE_JOB, search.attempts[0].config, Measurement.failed(Verdict.TIMEOUT, "30 s"))
    (found,) = read(write(tmp_path / "b.journal.jsonl", [study(), failed]))
    assert panels.best_so_far(found.searches[0]) == []
    assert page([found], [])  # a search in which nothing succeeded is told, not drawn


def test_roofs_are_the_anchors_where_there_are_any() -> None:
    (found,) = read(RESULTS / "cpu-pocl-zen3.json")
    memory, fp32 = roofs(found)
    assert memory.source.startswith("anchors")
    assert memory.least < memory.rate < memory.most
    assert memory.rate == pytest.approx(22.8, abs=0.1)  # the probe, minutes before, saw 17.6
    assert fp32.name == "fp32"
    (claimed, *_) = roofs(read(RESULTS / "adreno750.json")[0])
    assert (claimed.rate, claimed.source) == (76.8, "the device's sheet: published peaks")


def test_bars_hold_every_interval() -> None:
    bars = Bars(0.5, 2.0)
    assert [bars.place(ratio) for ratio in (0.5, 1.0, 2.0)] == [0, 50, 100]


def test_times_keep_their_intervals_unit() -> None:
    assert span_text(41_342.5, (36_789.0, 42_930.0)) == "41.3 µs [36.8, 42.9]"
    assert span_text(999_400.0, (900_000.0, 1_200_000.0)) == "999 µs [900, 1200]"
    assert span_text(5.0, None) == "5 ns"


# ---------------------------------------------------------------- the command


def test_the_command_writes_one_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.journal.jsonl", records())
    out = tmp_path / "deep" / "r.html"
    assert main(["report", str(tmp_path), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    assert out.read_text().startswith("<!doctype html>")
    monkeypatch.chdir(tmp_path)
    Path("results").mkdir()
    write(Path("results/a.journal.jsonl"), records())
    assert main(["report"]) == 0  # everything under results/
    assert Path("results/local/report.html").exists()


def test_markdown_for_a_pull_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.journal.jsonl", records())
    assert main(["report", str(path), str(RESULTS / "adreno750.json"), "--markdown"]) == 0
    text = capsys.readouterr().out
    assert "Driver `" in text
    assert "compiler `LLVM-" in text
    row = next(line for line in text.splitlines() if line.startswith("| gemv_decode gate/up"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:6] == ["int4/g128", "500 µs", "400 µs [400, 400]", "9", "1.25 [1.25, 1.25]"]
    assert re.fullmatch(r"[\d.]+ GB/s \[[\d.]+, [\d.]+\]", cells[6])
    assert "1 kernels keep the default" in text
    assert "2 of 2 winners within tolerance of float64 NumPy" in text
    assert "**Must not regress**" in text
    assert "Not measured, and so not in these tables: Adreno 750" in text
    assert "≈" not in text
    out = tmp_path / "pr.md"
    assert main(["report", str(path), "--markdown", str(out)]) == 0
    assert out.read_text().startswith("### gemma-2b on ")


def test_hostile_names_stay_in_their_table_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = {**study()["device"], "name": HOSTILE, "driver_version": HOSTILE}
    path = write(tmp_path / "a.journal.jsonl", [study(device=device), *records()[1:]])
    assert main(["report", str(path), "--markdown"]) == 0
    text = capsys.readouterr().out
    assert "<script>" not in re.sub(r"`[^`]*`", "", text).replace("\\<script\\>", "")  # a code span is text
    assert len({line.count(" | ") for line in text.splitlines() if line.startswith("| gemv_decode")}) == 1
    assert main(["report", str(path), "--out", str(tmp_path / "r.html")]) == 0
    assert "<script>" not in (tmp_path / "r.html").read_text()


def test_json_keeps_the_two_kinds_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.journal.jsonl", records())
    assert main(["report", str(path), str(RESULTS / "adreno750.json"), "--json"]) == 0
    measured, predicted = json.loads(capsys.readouterr().out)
    assert [kernel["tuned_ns"] for kernel in measured["measured"]] == [400_004.0, 500_004.0]
    assert measured["predicted"] == predicted["measured"] == []
    assert all("tuned_ns" not in kernel for kernel in predicted["predicted"])


def test_mistakes_are_sentences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    cut = tmp_path / "cut.json"
    cut.write_bytes((RESULTS / "nvidia-h200.json").read_bytes()[:2000])
    good = write(tmp_path / "a.journal.jsonl", records())
    for words, code, said in (
        ([str(tmp_path / "empty")], 2, "nothing to report"),
        ([str(tmp_path / "no.json")], 2, "no.json is not there"),
        ([str(cut)], 1, "cut.json"),
        ([str(good), "--out", str(tmp_path)], 2, "is a folder"),
        ([str(good), "--out", str(cut / "r.html")], 1, "cannot be written"),
    ):
        assert main(["report", *words]) == code, words
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def test_without_the_extra_the_sentence_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    found = read(write(tmp_path / "a.journal.jsonl", records()))
    for module in ("jinja2", "matplotlib"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(KilnError, match=r"pip install 'kiln-workbench\[report\]'"):
                pages.page(found, [])
