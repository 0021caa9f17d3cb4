"""Strict CBOR: the one encoding of everything that is signed, hashed or sent.

`loads` accepts a single CBOR item of plain values (null, bool, int64/uint64, finite or non-finite float, text,
bytes, array, map with text/bytes keys) and refuses everything else: tags, indefinite lengths, duplicate keys,
depth above 16, trailing bytes. Bytes are never re-encoded to verify: what was signed is what arrived. CBOR's
`undefined` and unnamed simple values come as types of cbor2 that no typed validator lets through.

May assume nothing about its input. Raises only `BadEncoding`.
"""

import io
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import cbor2

DEPTH_MAX = 16
"""Deepest legitimate value is an entry inside a page inside a frame: 7. Twice that, so that formats may grow."""


class BadEncoding(ValueError):
    """The bytes are not one strict CBOR item, or not of the expected shape."""


class _RefuseTags(Mapping[int, Any]):
    """Stands in for cbor2's table of tag decoders: every tag is found, and refused."""

    def __getitem__(self, tag: int) -> Any:
        return _refuse_tag

    def get(self, tag: int, default: Any = None) -> Any:
        return _refuse_tag

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[int]:
        return iter(())


def _refuse_tag(*_: object) -> NoReturn:
    raise ValueError("CBOR tags are not allowed")


_REFUSE_TAGS = _RefuseTags()


def dumps(value: Any) -> bytes:
    """Encode plain values. Callers pass only lists, tuples, dicts, str, bytes, int, float, bool and None."""
    return cbor2.dumps(value)


def loads(data: bytes) -> Any:
    """Decode exactly one strict CBOR item.

    Raises:
        BadEncoding: for anything else, in time and memory proportional to ``len(data)``.
    """
    decoder = cbor2.CBORDecoder(
        io.BytesIO(data),
        max_depth=DEPTH_MAX,
        allow_indefinite=False,
        allow_duplicate_keys=False,
        strict_hashable_types=True,
        semantic_decoders=_REFUSE_TAGS,
        tag_hook=_refuse_tag,
    )
    try:
        value = decoder.decode()
    except (cbor2.CBORDecodeError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        raise BadEncoding(f"not strict CBOR: {error}") from error
    try:
        decoder.read(1)
    except cbor2.CBORDecodeError:
        return value
    raise BadEncoding("bytes after the end of the item")
