"""One page that opens from disk: tables, charts, cases, a slice viewer, provenance. Nothing is fetched."""

import base64
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from nnunet_fm.experiments.status import RunStatus

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
VIEWER = """<p class="note">Click the picture, then: arrows, page keys or the wheel for slices; 0 to 5 for the contours.
Left in the picture is the patient's right in axial and coronal planes, the front in sagittal ones.</p>
<div class="viewer"><canvas id="canvas" tabindex="0" role="img" aria-label="slice viewer"></canvas>
<div class="controls">
<label>case <select id="case"></select></label>
<label>image <select id="channel"></select></label>
<label>region <select id="region"></select></label>
<label>plane <select id="plane"><option>axial<option>coronal<option>sagittal</select></label>
<label>slice <output id="where"></output><input type="range" id="slice" min="0" value="0"></label>
<fieldset id="overlays"><legend>contours</legend></fieldset>
</div></div>"""


def page(
    title: str,
    about: str,
    unfinished: Sequence[RunStatus],
    sections: Mapping[str, Sequence[str]],
    cases: Sequence[dict[str, Any]],
) -> str:
    """The page.

    Args:
        title: of the report.
        about: a sentence on what was compared.
        unfinished: runs that are not in it.
        sections: by their heading, pieces of HTML; empty ones are left out.
        cases: for the viewer, see `viewer_data`.
    """
    content = {name: pieces for name, pieces in sections.items() if pieces}
    if cases:
        content = {**content, "Viewer": [VIEWER]}
    links = "".join(f'<a href="#s{n}">{html.escape(name)}</a>' for n, name in enumerate(content))
    body = "\n".join(
        f'<section id="s{n}"><h2>{html.escape(name)}</h2>\n{"".join(pieces)}</section>'
        for n, (name, pieces) in enumerate(content.items())
    )
    return Template((HERE / "page.html").read_text()).substitute(
        title=html.escape(title),
        about=html.escape(about),
        unfinished=_banner(unfinished),
        navigation=links,
        sections=body,
        style=(HERE / "style.css").read_text(),
        viewer=(HERE / "viewer.js").read_text(),
        cases=json.dumps(list(cases)).replace("</", "<\\/"),
    )


def _banner(unfinished: Sequence[RunStatus]) -> str:
    if not unfinished:
        return ""
    items = "".join(
        f"<li>{html.escape(line.run)}: {line.state.value}, epoch {line.epoch}/{line.epochs or '?'} "
        f"{html.escape(line.reason[:300])}</li>"
        for line in unfinished
    )
    return (
        f'<div class="unfinished" role="status"><strong>Unfinished: {len(unfinished)} runs are not in this report.'
        f"</strong> Means, tests and bold figures will change.<details><summary>which</summary><ul>{items}</ul>"
        "</details></div>"
    )


def drawing(figure: "Figure", words: str) -> str:
    """A chart inside the page, with its words for readers and screen readers."""
    stream = StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    packed = base64.b64encode(stream.getvalue().encode()).decode()
    text = html.escape(words)
    return (
        f'<figure><img class="chart" alt="{text}" src="data:image/svg+xml;base64,{packed}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def folded(title: str, pieces: Iterable[str]) -> str:
    """Pieces that are opened on demand."""
    return f"<details><summary>{html.escape(title)}</summary>{''.join(pieces)}</details>"


def note(text: str) -> str:
    """Small print."""
    return f'<p class="note">{html.escape(text)}</p>'
