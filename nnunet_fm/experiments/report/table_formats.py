"""Tables as Markdown and LaTeX; `tables.html` is their HTML."""

from nnunet_fm.experiments.report.tables import Cell, Table
from nnunet_fm.internal.markdown import markdown_table, markdown_text

LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\n": " ",
    "\r": " ",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "±": r"$\pm$",
}


def to_markdown(table: Table) -> str:
    """Return the table in Markdown, with `**best**` and `*` for marked cells."""
    rows = [[_markdown_cell(cell) for cell in row] for row in table.rows]
    return f"{markdown_text(table.caption)}\n\n{markdown_table(table.head, rows)}"


def _markdown_cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text
    return rf"{text} \*" if cell.marked else text


def to_latex(table: Table) -> str:
    """Return the table in LaTeX, with the rules of booktabs."""
    rows = [" & ".join(_escape(name) for name in table.head) + r" \\", r"\midrule"]
    rows += [" & ".join(_latex_cell(cell) for cell in row) + r" \\" for row in table.rows]
    lines = [
        r"\begin{table}",
        rf"\caption{{{_escape(table.caption)}}}",
        rf"\begin{{tabular}}{{{'l' * len(table.head)}}}",
        r"\toprule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_cell(cell: Cell) -> str:
    text = _escape(cell.text)
    if cell.best:
        text = rf"\textbf{{{text}}}"
    return rf"{text}$^{{*}}$" if cell.marked else text


def _escape(text: str) -> str:
    return "".join(LATEX_ESCAPES.get(character, character) for character in text)
