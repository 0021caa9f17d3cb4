"""One column of values as strict CBOR: the bytes of `codec.dumps(list)`, in a third of its time where values are alike.

Encoding is the largest part of a bulk write beside SQLite, and a general encoder looks at each value anew. A column
mostly holds values of one kind, and for those the whole array can be made by a few calls that loop in C. Whatever else
a column may hold goes to the general encoder. Pure; may assume the values that `codec.dumps` takes.
"""

import math
import sys
from array import array
from collections.abc import Callable, Sequence
from functools import cache
from operator import itemgetter
from typing import Any, Final

from peers.model import codec

COLUMN_MIN: Final = 32
"""Values from which on a look at the whole column pays."""
_SMALL_INT_MAX: Final = 4095
_TEXT_CHARS_MAX: Final = 127
"""The head of a longer text is no ASCII."""


def encode_column(values: Sequence[Any]) -> bytes:
    """What `codec.dumps` makes of a list of these values, byte for byte."""
    if len(values) >= COLUMN_MIN:
        encode = _BY_TYPE.get(type(values[0]))
        body = encode(values) if encode is not None else None
        if body is not None:
            return array_head(len(values)) + body
    return codec.dumps(values)


def encode_columns(columns: Sequence[Sequence[Any]]) -> bytes:
    """What `codec.dumps` makes of a list of columns."""
    return array_head(len(columns)) + b"".join(map(encode_column, columns))


def array_head(count: int) -> bytes:
    """What comes before the items of an array."""
    if count < 24:
        return bytes((0x80 + count,))
    if count < 1 << 8:
        return bytes((0x98, count))
    return b"\x99" + count.to_bytes(2, "big") if count < 1 << 16 else b"\x9a" + count.to_bytes(4, "big")


def _texts(values: Sequence[str]) -> bytes | None:
    """ASCII texts of up to 127 characters: the head of each is ASCII too, so that all is one join of texts."""
    heads = _text_heads()
    try:
        distinct = set(values)
        if 4 * len(distinct) <= len(values):  # few different ones: each is made once
            joined = "".join(itemgetter(*values)({value: heads[len(value)] + value for value in distinct}))
        else:
            joined = "".join([heads[len(value)] + value for value in values])
    except (IndexError, TypeError):  # too long; None among them, or something else
        return None
    return joined.encode() if joined.isascii() else None


def _ints(values: Sequence[int]) -> bytes | None:
    try:
        if 0 <= values[0] <= _SMALL_INT_MAX and list(map(type, values)).count(int) == len(
            values
        ):  # True and 1.0 would be found as 1
            return b"".join(itemgetter(*values)(_small_ints()))
    except KeyError:
        pass
    try:
        low, high = min(values), max(values)
        for floor, limit, head, code in _INT_SIZES:
            if floor <= low and high < limit:  # so that True is not among them, and `array` takes no floats
                return _fixed(values, head, code)
    except TypeError:  # None among them, or something else
        pass
    return None


def _floats(values: Sequence[float]) -> bytes | None:
    if list(map(type, values)).count(float) < len(values) or not math.isfinite(
        sum(values)
    ):  # infinities have a short form
        return None
    return _fixed(values, b"\xfb", "d")


def _fixed(values: Sequence[float], head: bytes, code: str) -> bytes:
    """Items of one size, each `head` and then a big-endian number: byte by byte of the item, for all at once."""
    numbers = array(code, values)
    if sys.byteorder == "little":
        numbers.byteswap()
    raw, size = numbers.tobytes(), numbers.itemsize
    items = bytearray(len(values) * (size + 1))
    items[:: size + 1] = head * len(values)
    for at in range(size):
        items[at + 1 :: size + 1] = raw[at::size]
    return bytes(items)


@cache
def _text_heads() -> list[str]:
    """What comes before a text, by its length."""
    return [chr(0x60 + size) if size < 24 else f"x{chr(size)}" for size in range(_TEXT_CHARS_MAX + 1)]


@cache
def _small_ints() -> dict[int, bytes]:
    return {value: codec.dumps(value) for value in range(_SMALL_INT_MAX + 1)}


_BY_TYPE: Final[dict[type, Callable[[Any], bytes | None]]] = {str: _texts, int: _ints, float: _floats}
_INT_SIZES: Final = (
    (1 << 8, 1 << 16, b"\x19", "H"),
    (1 << 16, 1 << 32, b"\x1a", "I"),
    (1 << 32, 1 << 64, b"\x1b", "Q"),
)
"""Positive integers that all have a head and this many bytes: (least, limit, head, code of `array`)."""
