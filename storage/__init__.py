"""The store.

Start with ``services``: each file there is one thing that the store does. A package imports no package that is
above it in this list:

- ``s3``: the door for the clients of S3, on a port of its own. It uses the modules of ``api`` that every request needs,
  such as the reader of bodies.
- ``api``, ``console``, ``admin``, ``management``: the doors for programs, for people, for operators with a browser and
  for the command line. ``console`` asks the API, and nothing else.
- ``tasks``: the door for workers.
- ``services``: use cases; none of them imports another.
- ``replicas``: the copies of chunks across volumes: find, read, write, move, remove, judge, list.
- ``tracking``: where copies probably are; the only importer of ``sketches``.
- ``cluster``: the nodes as a process sees them. ``staging``: bodies before their ingest. ``jobs``: wake-ups and waits.
  ``accounts``: owners, their keys and quotas, and who a request comes from.
- ``models``: rows and querysets; ``models.statements`` goes past the ORM.
- ``volumes``: one protocol for the places where bytes lie.
- ``conf``, ``exceptions``, ``counters``, ``redis_connection``, ``recent``, ``phases``: used by all packages above.
"""
