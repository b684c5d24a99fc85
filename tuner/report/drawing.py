"""Matplotlib figures as SVG that lives inside the page: its colours are the page's, its text is text.

Matplotlib, because its SVG is static: no script in the page, a few kB a figure, and it prints as it looks. A figure is
drawn in stand-in colours which become CSS variables, so that one drawing serves a light page, a dark one and paper.
Every figure has a title and a description for whoever does not see it; marks may have a tooltip.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from harness.errors import KilnError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-ins, each a colour that nothing else uses, and what they become.
INK, MUTED, RULE, PAPER = "#010101", "#020202", "#030303", "#040404"
FAMILY = tuple(f"#0500{i:02d}" for i in range(8))
GOOD, BAD = "#060601", "#060602"
_VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", PAPER: "paper", GOOD: "good", BAD: "bad"} | {
    colour: f"family-{i}" for i, colour in enumerate(FAMILY)
}
_STAND_IN = re.compile("|".join(_VARIABLES))
EXTRA = "pip install 'kiln-workbench[report]'"
_SETTINGS: Any = {  # Matplotlib types the keys one by one
    "svg.fonttype": "none",  # text stays text: it can be found, read aloud and set in the page's font
    "svg.hashsalt": "kiln",
    "text.parse_math": False,  # names come from files: a $ is a $
    "font.family": "DejaVu Sans",  # comes with Matplotlib; Verdana is as wide, where a browser lacks it
    "font.size": 8,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def figure(width: float, height: float, rows: int = 1, *, sharex: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of so many inches with axes under each other. Raises KilnError without Matplotlib."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise KilnError(f"the page's figures need Matplotlib, which is not here: {EXTRA}") from error
    with matplotlib.rc_context(_SETTINGS):
        made = Figure(figsize=(width, height), layout="constrained")
        axes = made.subplots(rows, 1, sharex=sharex, squeeze=False)[:, 0]
    return made, list(axes)


def svg(made: Figure, name: str, title: str, description: str, tips: Mapping[str, str] | None = None) -> str:
    """The figure as an SVG element. `name` is unique in the page; `tips` are texts by the gid of what they explain."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context(_SETTINGS):
        made.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for gid, tip in (tips or {}).items():
        text = text.replace(f'<g id="{gid}">', f'<g id="{gid}"><title>{escape(tip)}</title>', 1)
    # Two figures in one page must not share ids: a clip path would be the other's.
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(xlink:href="|url\()#', rf"\1#{name}-", text)
    text = _STAND_IN.sub(lambda found: f"var(--{_VARIABLES[found[0]]})", text)
    text = re.sub(r"\s*\n\s*", " ", text).replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    assert box is not None
    head = (
        f'<svg class="plot" style="--width: {float(box[1]) * 96 / 72:.0f}px" viewBox="{box[0][9:-1]}" role="img" '
        f'aria-labelledby="{name}-title {name}-about" xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-about">{escape(description)}</desc>'
    )
    return head + text[text.index(">", text.index("<svg")) + 1 :].strip()
