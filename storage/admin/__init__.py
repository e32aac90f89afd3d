"""The operator's pages: the cluster, an inventory of files, the nodes, the jobs, the keys.

Everything that a hand edit could break is read-only. Each action calls the same service as the API and the commands.
"""

from storage.admin import cluster, files, jobs, keys, nodes

__all__ = ["cluster", "files", "jobs", "keys", "nodes"]
