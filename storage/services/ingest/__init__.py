"""Write uploads from staging to the volumes, in whole batches of chunks of one large upload or of many small uploads.

The phases, in order: ``ingest.read``, and for each batch ``ingest.pin``, ``ingest.locate``, ``ingest.count``,
``ingest.write``, ``ingest.record``, then ``ingest.join`` if there are segments, and ``ingest.close``. A worker may die
in any phase: the next worker starts the upload again, finds the copies that are already there, and finishes the upload.

Segments of a large body are ingested by free workers while the rest of the body still arrives. The upload's own job
stores the chunks after the last segment, helps with segments that no worker has, waits for the other segments, and
closes the content.
"""

from storage.services.ingest.queue import run_all, run_queued
from storage.services.ingest.uploads import ingest

__all__ = ["ingest", "run_all", "run_queued"]
