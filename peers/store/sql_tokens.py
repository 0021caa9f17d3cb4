"""SQL text cut into tokens, exactly where SQLite cuts it: what may be asked of a text before SQLite compiles it.

Two callers: declarations (which words stand in a CREATE TABLE) and the SQL door (how many statements, which verb, is
there an OR ROLLBACK). Nothing is parsed here: strings, quoted names and comments are told apart from words, no more.
Pure; raises SqlRefused for text that SQLite itself would not tokenise.
"""

import re
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from peers.errors import SqlRefused


class TokenKind(Enum):
    WORD = "word"
    """A keyword or a bare name."""
    NAME = "name"
    """A quoted name: "x", [x] or `x`. (SQLite may read "x" as a string; here it never is one.)"""
    STRING = "string"
    BLOB = "blob"
    NUMBER = "number"
    PARAMETER = "parameter"
    MARK = "mark"
    """Everything else, one character each."""


class Token(NamedTuple):
    kind: TokenKind
    text: str
    """As written; comments and space are left out."""

    def is_word(self, *words: str) -> bool:
        """Whether this is one of the keywords `words` (given in capitals), unquoted."""
        return self.kind is TokenKind.WORD and self.text.upper() in words

    def is_mark(self, mark: str) -> bool:
        return self.kind is TokenKind.MARK and self.text == mark

    @property
    def name(self) -> str | None:
        """The name that the token means where a name may stand; None where it is no name."""
        if self.kind is TokenKind.WORD:
            return self.text
        if self.kind is TokenKind.NAME:
            quote = self.text[-1]
            inner = self.text[1:-1]
            return inner if quote == "]" else inner.replace(quote * 2, quote)
        return None


_SCANNER = re.compile(
    r"""
      (?P<space>   [ \t\n\f\r]+ | --[^\n]* | /\*(?:[^*]|\*(?!/))*(?:\*/|$) )
    | (?P<blob>    [xX]'[^']*' )
    | (?P<string>  '(?:[^']|'')*' )
    | (?P<name>    "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\] )
    | (?P<number>  0[xX][0-9a-fA-F_]+ | (?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9][0-9_]*)? )
    | (?P<parameter> \?[0-9]* | [:@\#$][A-Za-z0-9_$\x80-\U0010ffff]+ )
    | (?P<word>    [A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]* )
    | (?P<mark>    [^'"`\[\0] )
    """,
    re.VERBOSE,
)
_KINDS = {kind.value: kind for kind in TokenKind}
_CACHED_TEXTS = 256


@lru_cache(maxsize=_CACHED_TEXTS)
def tokenize(sql: str) -> tuple[Token, ...]:
    """The tokens of `sql` without space and comments. Raises SqlRefused for NUL and for an unfinished quote."""
    tokens = []
    position = 0
    while position < len(sql):
        match = _SCANNER.match(sql, position)
        if match is None:
            raise SqlRefused(f"SQL: cannot read the text from {sql[position : position + 20]!r}")
        kind = match.lastgroup or ""
        if kind != "space":
            tokens.append(Token(_KINDS[kind], match.group()))
        position = match.end()
    return tuple(tokens)


def one_statement(sql: str) -> tuple[Token, ...]:
    """The tokens of the one statement in `sql`, without a closing semicolon. Raises SqlRefused for none or several."""
    tokens = tokenize(sql)
    end = len(tokens)
    while end and tokens[end - 1].is_mark(";"):
        end -= 1
    tokens = tokens[:end]
    if not tokens:
        raise SqlRefused("SQL: there is no statement")
    if any(token.is_mark(";") for token in tokens):
        raise SqlRefused("SQL: several statements in one text; pass them one by one, or use transact")
    return tokens
