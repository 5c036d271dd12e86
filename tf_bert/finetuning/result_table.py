"""Tables of results as text for the console and as Markdown."""

from collections.abc import Sequence

Rows = Sequence[Sequence[str]]
"""Cells; the first row has the names of the columns."""


def text_table(rows: Rows, left: int) -> list[str]:
    """Lines with columns two spaces apart.

    Args:
      rows: see `Rows`.
      left: the first columns, so many, are flush left, the others flush right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            f"{cell:<{width}}" if number < left else f"{cell:>{width}}"
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def markdown_table(rows: Rows, left: int) -> list[str]:
    """Lines of a Markdown table; the arguments are those of `text_table`."""
    header, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    rules = ["---" if number < left else "---:" for number in range(len(header))]
    return [f"| {' | '.join(row)} |" for row in (header, rules, *body)]
