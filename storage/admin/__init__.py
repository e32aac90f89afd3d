"""The operator's pages: the cluster, inventories of files and of objects, the nodes, the jobs, the keys, the quotas.

Everything that a hand edit could break is read-only. Each action calls the same service as the API and the commands.
"""

from django.contrib import admin

from storage.admin import cluster, files, jobs, keys, nodes, objects, quotas

__all__ = ["cluster", "files", "jobs", "keys", "nodes", "objects", "quotas"]

admin.site.site_header = admin.site.site_title = "OCC Storage"
admin.site.index_title = "Files, objects, nodes, jobs, keys and quotas. Times are in UTC."
# Without Django's list of all pages on the left, the tables fit into a window of 1280 pixels.
admin.site.enable_nav_sidebar = False
