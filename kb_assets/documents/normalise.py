"""From bytes to text that Postgres takes, and whose offsets mean the same everywhere.

Decoding, the first rule that fits:

1. A byte-order mark of UTF-8 or UTF-16 says what it is.
2. What is valid UTF-8 is UTF-8.
3. HTML says in its `<meta charset>` what it is.
4. Text with at least one valid multi-byte sequence was meant as UTF-8: each bad sequence
   becomes U+FFFD, and the rest stays readable.
5. Anything else was not meant as UTF-8: Windows-1252, the usual alternative, in which a
   whole file of umlauts stays readable too.

Normalising, in this order; doing it twice changes nothing:

1. Lone surrogates become U+FFFD.
2. CRLF, CR, vertical tab and form feed become LF.
3. Other control characters below U+0020 but tab, and U+007F, go; so does a leading U+FEFF.
4. Of more than 30 combining marks in a row, 30 stay (Unicode's Stream-Safe limit): the next
   step takes time in proportion to the square of their number.
5. Unicode NFC.
"""

import codecs
import re
import unicodedata

import regex

_LINE_ENDS = re.compile("\r\n?|[\v\f]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_TOO_MANY_MARKS = regex.compile(r"(\p{M}{30})\p{M}+")

_UNWANTED = bytes(code for code in (*range(32), 127) if code not in (9, 10))
_TELLING_CONTROLS = bytes(code for code in _UNWANTED if code not in b"\r\v\f\x1a\x1b")
_MOST_TELLING_CONTROLS = 8
_MOST_TELLING_SHARE = 0.01

_BINARY_SIGNATURES = (
    *(b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"7z\xbc"),
    *(b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"\x7fELF", b"%PDF-", b"\xd0\xcf\x11\xe0", b"SQLite f"),
)
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

_DECLARED = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([\w.-]{3,20})", re.IGNORECASE)
_DECLARED_BEFORE = 1024
_CHARSETS = re.compile(
    r"(iso-?8859-\d{1,2}|latin-?1|windows-125\d|cp125\d|koi8-[ru]|macintosh"
    r"|shift_jis|euc-jp|iso-2022-jp|euc-kr|gb2312|gbk|gb18030|big5)",
    re.IGNORECASE,
)


def is_binary(content: bytes) -> bool:
    """Say whether bytes are no text: a known signature, or more than 1% control bytes."""
    if content.startswith(_UTF_16):
        return False
    if content.startswith(_BINARY_SIGNATURES):
        return True
    telling = len(content) - len(content.translate(None, _TELLING_CONTROLS))
    return telling > _MOST_TELLING_CONTROLS and telling > len(content) * _MOST_TELLING_SHARE


def decode(content: bytes, *, html: bool = False) -> str:
    """Return bytes as text, by the rules above; never fails.

    Args:
        content: The bytes of a text file.
        html: Whether a `<meta charset>` is to be believed.
    """
    if content.startswith(_UTF_16):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        pass
    declared = _DECLARED.search(content, 0, _DECLARED_BEFORE) if html else None
    if declared and _CHARSETS.fullmatch(name := declared[1].decode("ascii", "replace")):
        return content.decode(name, errors="replace")
    ignoring = content.decode("utf-8", errors="ignore")
    if ignoring.isascii():
        return content.decode("windows-1252", errors="replace")
    return content.decode("utf-8", errors="replace")


def normalise(text: str) -> str:
    """Return the text by the rules above."""
    try:
        data = text.encode()
    except UnicodeEncodeError:
        text = _SURROGATES.sub("\ufffd", text)
        data = text.encode()
    if len(data) != len(data.translate(None, _UNWANTED)):
        text = _CONTROLS.sub("", _LINE_ENDS.sub("\n", text))
    if text.isascii():
        return text
    text = text.lstrip("\ufeff")
    if _TOO_MANY_MARKS.search(text):
        text = _TOO_MANY_MARKS.sub(r"\1", text)
    composed = unicodedata.normalize("NFC", text)
    # Composing can make two marks of one.
    return composed if composed == text else _TOO_MANY_MARKS.sub(r"\1", composed)
