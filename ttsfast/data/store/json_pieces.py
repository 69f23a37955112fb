"""JSON of long lists, piece by piece: in one piece it takes several times the memory of what it tells."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

BLOCK = 1024
"""Values in a piece."""


def list_pieces(values: Iterable[Any], **options: Any) -> Iterator[str]:
    """What joined is ``json.dumps(list(values), **options)``; ``options`` must not indent."""
    encoder = json.JSONEncoder(**options)
    remaining = iter(values)
    before = ""
    yield "["
    while block := list(islice(remaining, BLOCK)):
        yield before + encoder.encode(block)[1:-1]
        before = ", "
    yield "]"
