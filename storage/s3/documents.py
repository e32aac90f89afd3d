"""XML documents: write those of S3's answers, and read those that clients send. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from urllib.parse import quote
from xml.etree.ElementTree import Element, ParseError, SubElement, tostring

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from storage.s3.errors import S3Error

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
SCHEMA_INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
HEAD = b'<?xml version="1.0" encoding="UTF-8"?>\n'
LARGEST = 8 << 20  # The most bytes of a client's document: for 10,000 parts with checksums, or 1,000 long keys.

# XML 1.0 forbids these characters, except CR, even as references. S3 writes references all the same. CR is written as a
# reference because a parser would change a plain CR.
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0d\x0e-\x1f]")

Node = Element


def root(name: str) -> Node:
    """A new document, whose root has the given name."""
    return Element(name, {"xmlns": NAMESPACE})


def add(parent: Node, name: str, text: object = None) -> Node:
    """Add an element with a text to a parent. Without a text, the element is empty."""
    child = SubElement(parent, name)
    if text is not None:
        child.text = str(text)
    return child


def render(document: Node) -> bytes:
    """The bytes of a document."""
    body: bytes = tostring(document, encoding="utf-8", xml_declaration=False)
    return HEAD + _CONTROL.sub(lambda match: b"&#x%X;" % match[0][0], body)


def printable(text: str) -> str:
    """The text with a question mark in place of each character that a parser of XML may refuse."""
    return "".join(character if character.isprintable() else "?" for character in text)


def boolean(value: bool) -> str:
    return "true" if value else "false"


def timestamp(moment: datetime) -> str:
    """A time as it is written in documents: ISO 8601, with milliseconds, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z"


def encoder(kind: str | None) -> type[Encoder]:
    """The way in which a listing writes keys, as its parameter ``encoding-type`` asks for it.

    Raises:
        S3Error: the parameter is not ``url``.
    """
    if kind not in (None, "", "url"):
        raise S3Error("InvalidArgument", "Invalid Encoding Method specified in Request")
    return _UrlEncoder if kind else Encoder


class Encoder:
    """Writes keys as they are."""

    name: str | None = None

    @staticmethod
    def encode(text: str) -> str:
        return text


class _UrlEncoder(Encoder):
    """Writes keys with percent-encoding, in which every key can be written."""

    name = "url"

    @staticmethod
    def encode(text: str) -> str:
        return quote(text, safe="/")


def owner(parent: Node, name: str, owner_id: str, display_name: str) -> Node:
    """Add an element that names an owner."""
    found = add(parent, name)
    add(found, "ID", owner_id)
    add(found, "DisplayName", display_name)
    return found


def parse(data: bytes, name: str) -> Node:
    """Read a client's document. Namespaces are left out, because clients differ in them.

    Args:
        data: the document.
        name: the name that the root must have.

    Raises:
        S3Error: the document is not well-formed, has another root, or has entities.
    """
    try:
        document: Node = fromstring(data, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError):
        raise _malformed() from None
    for element in document.iter():
        element.tag = element.tag.rpartition("}")[2]
    if document.tag != name:
        raise _malformed()
    return document


def text_of(parent: Node, name: str) -> str | None:
    """The text of a child; None if there is no such child."""
    child = parent.find(name)
    return None if child is None else child.text or ""


def needed(parent: Node, name: str) -> str:
    """The text of a child.

    Raises:
        S3Error: there is no such child, or it has no text.
    """
    if not (found := text_of(parent, name)):
        raise _malformed()
    return found


def _malformed() -> S3Error:
    return S3Error(
        "MalformedXML",
        "The XML you provided was not well-formed or did not validate against our published schema",
    )
