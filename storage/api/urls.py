from django.urls import path, re_path

from storage.api import activity, buckets, history, jobs, keys, links, nodes, views, watching
from storage.api.downloads import answer as downloads
from storage.api.schema.views import DocsView, SchemaView
from storage.api.uploads import views as uploads
from storage.api.uploads.tus import views as resumable
from storage.api.wsgi import slashes

urlpatterns = [
    path("", views.RootView.as_view(), name="root"),
    path("health", views.HealthView.as_view(), name="health"),
    path("readyz", watching.ReadyView.as_view()),
    path("livez", watching.LiveView.as_view()),
    path("version", watching.VersionView.as_view()),
    path("metrics", watching.MetricsView.as_view()),
    path("status", views.StatusView.as_view(), name="status"),
    path("upload", uploads.UploadView.as_view(), name="upload"),
    re_path(r"^upload/(?P<file_name>(?s:.*))\Z", uploads.RawUploadView.as_view()),
    path("uploads/", resumable.UploadsView.as_view(), name="uploads"),
    path("uploads", resumable.UploadsView.as_view()),
    path("uploads/<str:upload_id>", resumable.ResumableView.as_view(), name="resumable"),
    path("download/<str:file_hash>", downloads.DownloadView.as_view(), name="download"),
    re_path(r"^download/(?P<file_hash>[^/]+)/(?P<file_name>(?s:.+))\Z", downloads.DownloadView.as_view()),
    path("account", views.AccountView.as_view(), name="account"),
    path("files", views.FilesView.as_view(), name="files"),
    path("files/<str:file_hash>", views.FileView.as_view(), name="file"),
    path("files/<str:file_hash>/links", links.LinksView.as_view(), name="links"),
    path("files/<str:file_hash>/links/<str:link_id>", links.LinkView.as_view(), name="link"),
    path("buckets", buckets.BucketsView.as_view(), name="buckets"),
    path("buckets/<str:bucket>/object", buckets.ObjectView.as_view(), name="object"),
    path("deletions/<str:deletion_id>", views.DeletionView.as_view(), name="deletion"),
    path("share/<str:token>", downloads.SharedView.as_view()),
    re_path(r"^share/(?P<token>[^/]+)/(?P<file_name>(?s:.*))\Z", downloads.SharedView.as_view()),
    path("verify/<str:file_hash>", views.VerifyView.as_view(), name="verify"),
    path("route/<str:chunk_hash>", views.RouteView.as_view(), name="route"),
    path("rebalance/<str:file_hash>", views.RebalanceView.as_view(), name="rebalance"),
    path("jobs", jobs.JobsView.as_view(), name="jobs"),
    path("jobs/<str:job_id>", jobs.JobView.as_view(), name="job"),
    path("jobs/<str:job_id>/cancel", jobs.CancelView.as_view(), name="cancel"),
    path("jobs/<str:job_id>/retry", jobs.RetryView.as_view(), name="retry"),
    path("links", links.OwnLinksView.as_view(), name="own_links"),
    path("links/<str:link_id>", links.OwnLinkView.as_view(), name="own_link"),
    path("keys", keys.KeysView.as_view(), name="keys"),
    path("keys/<str:key_id>", keys.KeyView.as_view(), name="key"),
    path("keys/<str:key_id>/rotate", keys.RotateView.as_view(), name="rotate"),
    path("activity", activity.ActivityView.as_view(), name="activity"),
    path("nodes", nodes.NodesView.as_view(), name="nodes"),
    path("nodes/<str:node_id>", nodes.NodeView.as_view(), name="node"),
    path("nodes/<str:node_id>/audit", nodes.AuditView.as_view(), name="audit"),
    path("nodes/<str:node_id>/drain", nodes.DrainView.as_view(), name="drain"),
    path("nodes/<str:node_id>/retire", nodes.RetireView.as_view(), name="retire"),
    path("history", history.HistoryView.as_view(), name="history"),
    path("schema", SchemaView.as_view(), name="schema"),
    path("docs", DocsView.as_view(), name="docs"),
    re_path(r"/\Z", slashes.without_slash),
]
