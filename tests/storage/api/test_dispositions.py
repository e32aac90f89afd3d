from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storage.api.http.dispositions import LONGEST, attachment, form_names
from tests.storage.api.test_names import NAMES

HASH = "0123456789abcdef" * 4
FIELD = re.compile(r"attachment; filename=\"([ -~]*)\"(?:; filename\*=UTF-8''([!-~]+))?")


def by_a_browser(name: str) -> str:
    """Quote a name for a form as WHATWG's HTML standard does."""
    return '"{}"'.format(name.replace('"', "%22"))


def by_an_older_client(name: str) -> str:
    """Quote a name as RFC 822 quotes a string, as Go does, and as curl did before 7.81."""
    return '"{}"'.format(name.replace("\\", "\\\\").replace('"', '\\"'))


# -- names in forms ------------------------------------------------------------


@given(NAMES.filter(lambda name: "%" not in name and "\\\\" not in name))
@example("back\\slash.txt")
@example("at the end\\")
@example('a\\"b')
@example('"; filename="other')
def test_a_name_is_what_a_browser_means(name: str) -> None:
    assert form_names(f'form-data; name="file"; filename={by_a_browser(name)}') == ("file", name)


@given(NAMES.filter(lambda name: "%" not in name))
@example("back\\slash.txt")
@example("C:\\folder\\a.txt")
@example("\\\\server\\share\\a.txt")
@example('say "hi".txt')
@example('100%22"')
@example('\\"')
def test_a_name_is_what_an_older_client_means(name: str) -> None:
    assert form_names(f'form-data; name="file"; filename={by_an_older_client(name)}') == ("file", name)


@pytest.mark.parametrize(
    ("parameters", "names"),
    [
        ("", (None, None)),
        (";", (None, None)),
        ('; name="a"', ("a", None)),
        ('; name="a";', ("a", None)),
        ('; name="a"; filename=""', ("a", "")),
        (';name = a ; FileName = a.txt ; other="x"', ("a", "a.txt")),
        ('; filename="a;b.txt"; name="c"', ("c", "a;b.txt")),
        # The single backslash shows that this client does not escape backslashes.
        (r'; name="a"; filename="\\server\share"', ("a", r"\\server\share")),
        ('; name="a"; filename="100%.txt"', ("a", "100%.txt")),
        ('; name="a"; filename="%41%0a%2F.txt"', ("a", "%41%0a%2F.txt")),
        ('; name="a"; filename="%0D%0A"', ("a", "\r\n")),
        # .NET clients send both ``filename`` and ``filename*``.
        ("; name=a; filename=\"_.txt\"; filename*=UTF-8'en'%E6%97%A5.txt", ("a", "日.txt")),
        ("; name=a; filename*=iso-8859-1''%E9.txt", ("a", "é.txt")),
        ("; name=a; filename*=utf-8''%FF", ("a", "\udcff")),
    ],
)
def test_a_part_is_named_by_its_parameters(parameters: str, names: tuple[str | None, str | None]) -> None:
    assert form_names(f"form-data{parameters}") == names


@pytest.mark.parametrize(
    "parameters",
    [
        '; filename="say "hi".txt"',
        '; filename="a',
        '; filename="a" b',
        '; name="a"; name="b"',
        "; filename=a b.txt",
        "; =a",
        "; filename",
        "; filename*=a.txt",
        "; filename*=nonsense''a.txt",
    ],
)
def test_what_cannot_be_read_is_refused(parameters: str) -> None:
    with pytest.raises(ValueError):
        form_names(f"form-data{parameters}")


# -- names of downloads --------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("a\r\nSet-Cookie: a=b")
@example('"; filename="other.exe')
def test_no_name_gets_out_of_its_field(name: str) -> None:
    match = FIELD.fullmatch(attachment(name, HASH))
    assert match
    plain, extended = match.groups()
    assert not re.search(r'["\\/]|%[0-9A-Fa-f]{2}', plain)
    assert (plain if extended is None else unquote(extended, errors="strict")) == name


@given(NAMES)
@example(HASH + ".")
@example("日." + "x" * 253)
def test_a_client_that_knows_ascii_alone_gets_a_name_that_can_be_one(name: str) -> None:
    match = FIELD.fullmatch(attachment(name, HASH))
    assert match
    if match[2]:
        assert 1 <= len(match[1]) <= LONGEST
        assert match[1].strip("._ ")


@pytest.mark.parametrize(
    ("name", "otherwise"),
    [
        ("日.txt", f"{HASH}.txt"),
        ("日本語 2024.tar.gz", "_ 2024.tar.gz"),
        ("Übersicht été.pdf", "Ubersicht ete.pdf"),
        ("日", HASH),
        ("日.本", HASH),
        ("a.日", "a"),
        ("．．", HASH),
        ("㎏.txt", f"{HASH}.txt"),  # The character ㎏ is not expanded to two letters.
        ("..／日", HASH),
        ('say "hi".txt', "say _hi_.txt"),
        ("back\\slash.txt", "back_slash.txt"),
        ("100%20.txt", "100_20.txt"),
    ],
)
def test_the_ascii_name_keeps_what_it_can_and_the_extension(name: str, otherwise: str) -> None:
    assert attachment(name, HASH).startswith(f"attachment; filename=\"{otherwise}\"; filename*=UTF-8''")


@pytest.mark.parametrize("name", ["example.pdf", "a;b", "100%.txt", " spaces ", "research&notes.txt", "it's.txt"])
def test_a_name_in_ascii_needs_no_other(name: str) -> None:
    assert attachment(name, HASH) == f'attachment; filename="{name}"'
