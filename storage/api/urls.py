from django.urls import path, re_path

from storage.api import views
from storage.api.downloads import answer as downloads
from storage.api.uploads import views as uploads
from storage.api.wsgi import slashes

urlpatterns = [
    path("", views.Root.as_view(), name="root"),
    path("health", views.Health.as_view(), name="health"),
    path("status", views.Status.as_view(), name="status"),
    path("upload", uploads.Upload.as_view(), name="upload"),
    re_path(r"^upload/(?P<file_name>(?s:.*))\Z", uploads.RawUpload.as_view()),
    path("download/<str:file_hash>", downloads.Download.as_view(), name="download"),
    re_path(r"^download/(?P<file_hash>[^/]+)/(?P<file_name>(?s:.+))\Z", downloads.Download.as_view()),
    path("files", views.Files.as_view(), name="files"),
    path("files/<str:file_hash>", views.File.as_view(), name="file"),
    path("verify/<str:file_hash>", views.Verify.as_view(), name="verify"),
    path("route/<str:chunk_hash>", views.Route.as_view(), name="route"),
    path("rebalance/<str:file_hash>", views.Rebalance.as_view(), name="rebalance"),
    path("jobs/<str:job_id>", views.Job.as_view(), name="job"),
    re_path(r"/\Z", slashes.without_slash),
]
