"""Reading CSV tables as spreadsheets write them: with semicolons or tabs, a byte order mark, blanks and empty rows."""

import csv
import io
from typing import BinaryIO

_SEPARATORS = ",;\t"


def read_csv_rows(file: BinaryIO) -> tuple[list[str], list[dict[str, str]]]:
    """The columns of a table in UTF-8 and its rows, without blanks around names and values.

    The separator is the one that the heading has most of. Missing values at the end of a row are "". Raises what the
    decoder and the csv module raise.
    """
    text = file.read().decode("utf-8-sig")
    heading = text.partition("\n")[0]
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=max(_SEPARATORS, key=heading.count))
    columns, *rows = [[value.strip() for value in line] for line in lines if any(map(str.strip, line))] or [[]]
    return columns, [dict.fromkeys(columns, "") | dict(zip(columns, row, strict=False)) for row in rows]
