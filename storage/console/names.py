"""Files and objects as the console's addresses and forms name them.

A file is named by the hash of its bytes and one of its names, an object by its bucket and its key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.urls import reverse

from storage.models.names import SEPARATOR, folder_of, last_segment

ITEM = "item"  # the field of a form that says which file is meant, by its hash and its name
HASH_LENGTH = 64
NAME = "file_name"
FOLDER = "folder"
KEY = "key"

KINDS: Mapping[str, str] = {
    "image": "png jpg jpeg gif webp avif bmp svg heic tif tiff ico",
    "video": "mp4 m4v webm mov mkv avi ogv",
    "audio": "mp3 wav ogg oga flac m4a aac opus",
    "text": "txt md csv tsv json xml html htm css js ts py c h rs go java sh yml yaml toml ini log",
    "archive": "zip gz tgz bz2 xz zst tar 7z rar jar iso",
    "document": "pdf doc docx odt rtf xls xlsx ods ppt pptx odp epub",
}


@dataclass(frozen=True)
class Folder:
    """One folder of files, or of the objects of a bucket.

    Attributes:
        path: its whole path, with a slash at its end; empty for the bucket itself.
        bucket: the name of the bucket; empty for a folder of files.
    """

    path: str
    bucket: str = ""

    @property
    def name(self) -> str:
        """The name without outer folders. In a key with two slashes in a row, a folder has no name but its slash."""
        return (last_segment(self.path[:-1]) or SEPARATOR) if self.path else self.bucket

    @property
    def page(self) -> str:
        where = reverse("console:bucket", args=[self.bucket]) if self.bucket else reverse("root")
        return f"{where}?{urlencode({FOLDER: self.path})}" if self.path else where


def trail(path: str, bucket: str = "") -> list[Folder]:
    """The folders of a path, from the outermost on. The path is empty or has a slash at its end."""
    return [Folder(path[: place + 1], bucket) for place, character in enumerate(path) if character == SEPARATOR]


def kind_of(base: str) -> str:
    """The kind of a file, by the ending of its name. Lists show an icon for each kind."""
    ending = base.rpartition(".")[2].lower()
    return next((kind for kind, endings in KINDS.items() if ending in endings.split()), "file")


@dataclass(frozen=True)
class Keyed:
    """One object.

    Attributes:
        bucket: the name of its bucket.
        key: its key.
    """

    bucket: str
    key: str

    @property
    def base(self) -> str:
        """The key without its folders. A key may end in slashes: they belong to its base."""
        return self.key[len(folder_of(self.key.rstrip(SEPARATOR))) :]

    @property
    def kind(self) -> str:
        return kind_of(self.base)

    @property
    def download(self) -> str:
        return self._at("object")

    @property
    def deletion(self) -> str:
        return self._at("console:delete_object")

    def _at(self, name: str) -> str:
        return f"{reverse(name, args=[self.bucket])}?{urlencode({KEY: self.key})}"


@dataclass(frozen=True)
class Named:
    """One file.

    Attributes:
        file_hash: the SHA-256 of its bytes.
        name: its name.
    """

    file_hash: str
    name: str

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Named:
        """The file that a document of the API describes."""
        return cls(document["file_hash"], document["file_name"])

    @classmethod
    def from_item(cls, item: str) -> Named:
        """The file that a field of a form names."""
        return cls(item[:HASH_LENGTH], item[HASH_LENGTH + 1 :])

    @property
    def item(self) -> str:
        return f"{self.file_hash}/{self.name}"

    @property
    def base(self) -> str:
        """The name without its folders."""
        return last_segment(self.name)

    @property
    def folder(self) -> str:
        return folder_of(self.name)

    @property
    def trail(self) -> list[Folder]:
        """The folders that the file is in, from the outermost on."""
        return trail(self.folder)

    @property
    def kind(self) -> str:
        return kind_of(self.base)

    @property
    def page(self) -> str:
        return self._at("console:file")

    @property
    def sharing(self) -> str:
        return self._at("console:share")

    @property
    def renaming(self) -> str:
        return self._at("console:rename")

    @property
    def preview(self) -> str:
        return self._at("console:preview")

    @property
    def deletion(self) -> str:
        return f"{reverse('console:delete')}?{urlencode({ITEM: self.item})}"

    @property
    def download(self) -> str:
        return f"{reverse('download', args=[self.file_hash])}?{urlencode({NAME: self.name})}"

    def _at(self, name: str) -> str:
        return f"{reverse(name, args=[self.file_hash])}?{urlencode({NAME: self.name})}"
