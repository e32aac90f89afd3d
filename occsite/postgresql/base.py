"""The backend itself; Django looks for ``DatabaseWrapper`` in this module."""

from __future__ import annotations

from threading import Lock
from typing import Any, ClassVar

from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.postgresql import base

from occsite.postgresql.connection import ImpatientConnection
from occsite.postgresql.pool import Pool


class DatabaseWrapper(base.DatabaseWrapper):
    """Borrows connections from our pool if OPTIONS has ``pool``, the largest number of connections."""

    _pools: ClassVar[dict[str, Pool]] = {}
    _pools_lock = Lock()

    @property
    def pool(self) -> Any:
        """The pool of this process; None if OPTIONS names no pool."""
        size = self.settings_dict["OPTIONS"].get("pool")
        if self.alias == NO_DB_ALIAS or not size:
            return None
        with self._pools_lock:
            if self.alias not in self._pools:
                self._pools[self.alias] = Pool(self._connect, int(size))
            return self._pools[self.alias]

    def close_pool(self) -> None:
        """Close the pool; Django calls this when the connection's settings change."""
        with self._pools_lock:
            pool = self._pools.pop(self.alias, None)
        if pool is not None:
            pool.close()

    def _connect(self) -> ImpatientConnection:
        connection = ImpatientConnection.connect(**self.get_connection_params(), autocommit=True)
        try:
            self._configure_connection(connection)  # type: ignore[attr-defined]  # The stubs lack it.
        except BaseException:
            connection.close()
            raise
        return connection
