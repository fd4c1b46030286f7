"""One page that opens from disk: tables, charts, cases, a slice viewer. It fetches nothing."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_fm.experiments.report.tables import Table
from nnunet_fm.experiments.status import RunStatus
from nnunet_fm.experiments.templates import render
from nnunet_fm.internal.plotting import svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class PageChart:
    """A chart on the page.

    Attributes:
        text: its caption, which screen readers read, too.
        svg: the drawing, base64.
    """

    text: str
    svg: str


@dataclass(frozen=True)
class Section:
    """A section of the page, shown in this order; empty sections are not shown.

    Attributes:
        title: heading.
        charts: charts.
        tables: tables.
        collapsed: tables that are shown on demand.
        collapsed_title: what the reader clicks to see them.
        note: small print.
        has_viewer: whether it holds the slice viewer.
    """

    title: str
    charts: list[PageChart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    collapsed: list[Table] = field(default_factory=list)
    collapsed_title: str = ""
    note: str = ""
    has_viewer: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.charts or self.tables or self.collapsed or self.note or self.has_viewer)


def page_chart(figure: "Figure", text: str) -> PageChart:
    """Draw a figure for the page."""
    return PageChart(text, base64.b64encode(svg(figure).encode()).decode())


def render_page(
    title: str,
    about: str,
    unfinished: Sequence[RunStatus],
    sections: Sequence[Section],
    cases: Sequence[dict[str, Any]],
    left_out: Sequence[str] = (),
) -> str:
    """Return the page as HTML.

    Args:
        title: title of the report.
        about: a sentence on what was compared.
        unfinished: state of the runs that are not in the report.
        sections: sections in their order.
        cases: cases for the viewer, see `viewer_data`; without any there is no viewer.
        left_out: a line for each case that no mean includes, as it cannot be read.
    """
    shown = [section for section in sections if not section.is_empty]
    if cases:
        shown.append(Section("Viewer", has_viewer=True))
    return render(
        "report/page.html",
        title=title,
        about=about,
        unfinished=unfinished,
        left_out=left_out,
        sections=shown,
        cases=list(cases),
        style=(FOLDER / "style.css").read_text(encoding="utf-8"),
        viewer=(FOLDER / "viewer.js").read_text(encoding="utf-8"),
    )
