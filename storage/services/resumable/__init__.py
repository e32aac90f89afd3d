"""Uploads that arrive in several requests: begin, receive, join, end. A worker hashes and stores what has arrived.

Only the offset in an upload's row counts: bytes behind it in staging are ignored (RACES 41).
"""

from storage.services.resumable.arrival import Proof, declare_length, receive
from storage.services.resumable.uploads import Plan, begin, end, find, join, take_over, unfinished

__all__ = ["Plan", "Proof", "begin", "declare_length", "end", "find", "join", "receive", "take_over", "unfinished"]
