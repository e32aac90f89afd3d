"""The operator's pages: an inventory of files, the nodes, the jobs.

What a hand edit could break is read-only; what may be done goes through the same service as the API and the commands.
"""

from storage.admin import cluster, files, jobs, nodes

__all__ = ["cluster", "files", "jobs", "nodes"]
