"""Markdown tables."""

import re
from collections.abc import Iterable, Sequence


def markdown_text(text: str) -> str:
    r"""Return a text on one line, without HTML and without bars that would divide a cell.

    >>> markdown_text("a|b <script>")
    'a\\|b &lt;script>'
    """
    line = " ".join(text.splitlines()).replace("|", r"\|")
    return re.sub("<(?=[A-Za-z/!?])", "&lt;", line)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Format cells as a Markdown table."""
    texts = [[markdown_text(str(cell)) for cell in cells] for cells in (head, *rows)]
    lines = [f"| {' | '.join(cells)} |" for cells in texts]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])
