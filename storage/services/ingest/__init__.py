"""From staging to the node volumes: whole batches of chunks, of one large upload or of many small ones.

The phases, in order: ``ingest.read``, and for each batch ``ingest.pin``, ``ingest.locate``, ``ingest.count``,
``ingest.write``, ``ingest.record``, then ``ingest.join`` if there are segments, and ``ingest.close``. A worker may die
in any of them: the next one begins the upload again, finds what is already there, and ends it.

Of a large body, segments are ingested while the rest still arrives, by whichever workers are free. The upload's own job
does what is left, helps with segments that nobody is at, waits for the others, and closes the content.
"""

from storage.services.ingest.queue import run_all, run_queued
from storage.services.ingest.uploads import ingest

__all__ = ["ingest", "run_all", "run_queued"]
