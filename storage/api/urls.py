from django.urls import path

from storage.api import views

urlpatterns = [
    path("", views.Root.as_view(), name="root"),
    path("health", views.Health.as_view(), name="health"),
    path("status", views.Status.as_view(), name="status"),
    path("upload", views.Upload.as_view(), name="upload"),
    path("download/<str:file_hash>", views.Download.as_view(), name="download"),
    path("files", views.Files.as_view(), name="files"),
    path("files/<str:file_hash>", views.File.as_view(), name="file"),
    path("verify/<str:file_hash>", views.Verify.as_view(), name="verify"),
    path("route/<str:chunk_hash>", views.Route.as_view(), name="route"),
    path("rebalance/<str:file_hash>", views.Rebalance.as_view(), name="rebalance"),
    path("jobs/<str:job_id>", views.Job.as_view(), name="job"),
]
