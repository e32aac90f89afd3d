from storage.models.activity import Activity
from storage.models.bucket import Bucket
from storage.models.chunk import Chunk, Pin
from storage.models.cluster import Cluster
from storage.models.content import Content, ManifestEntry
from storage.models.deletion import Deletion
from storage.models.described import Properties
from storage.models.file import NOBODY, SORT_KEYS, UPLOADED, File, FileQuerySet, Position, Sort, nobody
from storage.models.generation import Generation
from storage.models.hold import Hold
from storage.models.holding import Holding
from storage.models.identity import Identity
from storage.models.job import Job
from storage.models.key import Key, KeyLimit, Scope
from storage.models.last_census import LastCensus
from storage.models.lasting import Lasting
from storage.models.link import Link
from storage.models.multipart import Multipart
from storage.models.node import Node
from storage.models.object import Destination, Object
from storage.models.part import Part
from storage.models.quota import Quota, Usage
from storage.models.remains import Remains
from storage.models.resumable import Resumable
from storage.models.sample import Sample
from storage.models.segment import Segment
from storage.models.statements.acceptance import (
    Accepted,
    AcceptedFile,
    AcceptedPart,
    Body,
    Origin,
    record_acceptance,
    record_part,
    record_reception,
)
from storage.models.statements.folders import folders
from storage.models.statements.open_content import OpenContent
from storage.models.statements.open_file import OpenFile
from storage.models.statements.open_object import OpenObject, OpenPart
from storage.models.survey import LastSurvey
from storage.models.tally import Tally
from storage.models.upload import Upload

__all__ = [
    "NOBODY",
    "SORT_KEYS",
    "UPLOADED",
    "Accepted",
    "AcceptedFile",
    "AcceptedPart",
    "Activity",
    "Body",
    "Bucket",
    "Chunk",
    "Cluster",
    "Content",
    "Deletion",
    "Destination",
    "File",
    "FileQuerySet",
    "Generation",
    "Hold",
    "Holding",
    "Identity",
    "Job",
    "Key",
    "KeyLimit",
    "LastCensus",
    "LastSurvey",
    "Lasting",
    "Link",
    "ManifestEntry",
    "Multipart",
    "Node",
    "Object",
    "OpenContent",
    "OpenFile",
    "OpenObject",
    "OpenPart",
    "Origin",
    "Part",
    "Pin",
    "Position",
    "Properties",
    "Quota",
    "Remains",
    "Resumable",
    "Sample",
    "Scope",
    "Segment",
    "Sort",
    "Tally",
    "Upload",
    "Usage",
    "folders",
    "nobody",
    "record_acceptance",
    "record_part",
    "record_reception",
]
