"""The report's page in a real browser: nothing errs, nothing is fetched, the figures are there and have a size."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from report_samples import recording, records, write

from tuner.cli import main

RESULTS = Path(__file__).parent.parent / "results"
for needed in ("matplotlib", "jinja2"):
    pytest.importorskip(needed, reason="the report extra is not installed")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is here: apt-get install chromium, or make test-page"),
]

# Runs beside a copy of the page, in which scripts are let in for it alone; the page itself has none.
PROBE = """
addEventListener("load", () => {
  const boxes = [...document.querySelectorAll("svg.plot")].map((svg) => svg.getBoundingClientRect());
  const seen = boxes.filter((box) => box.width >= 100 && box.height >= 60);  // what is folded away has no box
  const told = {
    plots: seen.length,
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    fetched: performance.getEntriesByType("resource").map((entry) => entry.name),
    ink: getComputedStyle(document.body).color, paper: getComputedStyle(document.body).backgroundColor,
  };
  document.body.append(Object.assign(document.createElement("pre"), {id: "told", textContent: JSON.stringify(told)}));
});
"""


def browse(page: Path, folder: Path, *options: str) -> tuple[str, str]:
    """The document as the browser has it after loading, and what it logged."""
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",  # root in a container has none to give
            "--disable-gpu",
            f"--user-data-dir={folder / 'profile'}",
            "--enable-logging=stderr",
            "--virtual-time-budget=5000",
            *options,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, done.stderr


def console(log: str) -> list[str]:
    """What the page itself said; the browser's own complaints about its surroundings are not the page's."""
    return [line for line in log.splitlines() if ":CONSOLE" in line]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write(folder / "a.journal.jsonl", records())
    (folder / "t.json").write_text(json.dumps(recording()))
    out = folder / "report.html"
    assert main(["report", str(folder), *map(str, sorted(RESULTS.glob("*.json"))), "--out", str(out)]) == 0
    return out


def test_the_page_loads_without_an_error(page: Path, tmp_path: Path) -> None:
    dom, log = browse(page, tmp_path, "--dump-dom")
    assert console(log) == []
    for figure in ("roofline", "telemetry"):
        assert re.search(rf'<figure class="[^"]*{figure}[^"]*"><svg', dom), figure
    for panels in ("convergence", "slices"):
        assert re.search(rf'class="panels {panels}">\s*<figure>.*?<svg', dom, re.DOTALL), panels
    assert dom.count('class="large roofline"') == 5  # a journal, two measured documents, two predicted ones
    assert 'id="overview"' in dom


@pytest.mark.parametrize("width", [1300, 500])
def test_figures_have_a_size_and_nothing_is_fetched(page: Path, tmp_path: Path, width: int) -> None:
    text = page.read_text()
    assert "script-src" not in text  # default-src 'none' rules scripts out
    probed = tmp_path / "probed.html"
    text = text.replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';", 1)
    probed.write_text(text.replace("</head>", f"<script>{PROBE}</script></head>", 1))
    dom, log = browse(probed, tmp_path, "--dump-dom", f"--window-size={width},1000")
    assert console(log) == []
    found = re.search(r'<pre id="told">(.*?)</pre>', dom)
    assert found is not None
    told = json.loads(found[1])
    assert told["plots"] >= 10
    assert told["fetched"] == []
    assert told["wide"] <= 0  # the page itself never scrolls sideways, at most a table in it
    assert told["ink"] != told["paper"]


def test_the_page_prints(page: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.pdf"
    _, log = browse(page, tmp_path, f"--print-to-pdf={out}", "--no-pdf-header-footer")
    assert console(log) == []
    assert out.read_bytes().startswith(b"%PDF")
    assert out.stat().st_size > 50_000
