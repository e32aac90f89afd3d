"""The body of a download, which is a transfer until the server closes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from django.db import connection

from storage.api.wsgi.transfers import Slot


class Body:
    """The pieces of a body. The code that serves the body closes it, which frees the slot of the transfer."""

    def __init__(self, begin: Callable[[], Iterator[bytes]]) -> None:
        """
        Args:
            begin: a function that reads the first piece, and returns all pieces. It is called while the slot is held.

        Raises:
            TooManyTransfers, TooManyOwnTransfers: there is no slot.
            Exception: an error of ``begin``.
        """
        self._slot = Slot()
        try:
            self._pieces = begin()
        except BaseException:
            self._slot.release()
            raise

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        self._slot.release()
        # The thread may have opened a connection to report a bad copy during the download.
        connection.close()
