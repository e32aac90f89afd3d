from storage.models.chunk import Chunk, Pin
from storage.models.cluster import Cluster
from storage.models.content import Content, ManifestEntry
from storage.models.file import NOBODY, SORT_KEYS, UPLOADED, File, Position, Sort, nobody
from storage.models.generation import Generation
from storage.models.hold import Hold
from storage.models.identity import Identity
from storage.models.job import Job
from storage.models.key import Key, Scope
from storage.models.last_census import LastCensus
from storage.models.link import Link
from storage.models.node import Node
from storage.models.quota import Quota, Usage
from storage.models.resumable import Resumable
from storage.models.segment import Segment
from storage.models.statements.acceptance import Accepted, Body, record_acceptance, record_reception
from storage.models.statements.open_file import OpenFile
from storage.models.survey import LastSurvey
from storage.models.tally import Tally
from storage.models.upload import Upload

__all__ = [
    "NOBODY",
    "SORT_KEYS",
    "UPLOADED",
    "Accepted",
    "Body",
    "Chunk",
    "Cluster",
    "Content",
    "File",
    "Generation",
    "Hold",
    "Identity",
    "Job",
    "Key",
    "LastCensus",
    "LastSurvey",
    "Link",
    "ManifestEntry",
    "Node",
    "OpenFile",
    "Pin",
    "Position",
    "Quota",
    "Resumable",
    "Scope",
    "Segment",
    "Sort",
    "Tally",
    "Upload",
    "Usage",
    "nobody",
    "record_acceptance",
    "record_reception",
]
