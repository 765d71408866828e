r"""Tables as LaTeX: fragments that compile in a document with ``\usepackage{booktabs,graphicx}``."""

from __future__ import annotations

import re

from pkt.table import Table

HEADER = "% made by pkt report; needs \\usepackage{booktabs,graphicx}\n"
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "±": r"$\pm$",
    "≈": r"$\approx$",
    "×": r"$\times$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "–": "--",
    "…": r"\ldots{}",
    "\n": " ",
}
_MINUS = re.compile(r"(?<![\w.)\]-])-(?=\d)")  # before a number: a sign, not a hyphen


def escaped(text: str) -> str:
    """Return text that LaTeX typesets as it stands."""
    signed = _MINUS.sub("\0", text)
    return "".join(_SPECIAL.get(letter, letter) for letter in signed).replace("\0", "$-$")


def latex_table(table: Table) -> str:
    """Return a `table` environment: the first column left, numbers right, the title as its caption."""
    body = [_row(table.columns), r"\midrule", *(_row(row) for row in table.rows)]
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering\small",
            rf"\caption{{{escaped(table.title)}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",  # no wider than the page
            rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
            r"\toprule",
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
        ]
    )


def _row(cells: tuple[str, ...]) -> str:
    line = " & ".join(escaped(cell) for cell in cells)
    # after a line break LaTeX reads [ and * as options of that break
    return ("{}" if line.startswith(("[", "*")) else "") + line + r" \\"
