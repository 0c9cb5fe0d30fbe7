"""How rows travel: sets of rows go in as one JSON parameter, and come out as frozen values."""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson


def as_json(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as the text of a JSON array, for `json_to_recordset`: one parameter however many rows."""
    return orjson.dumps(list(rows)).decode()
