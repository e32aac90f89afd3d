from django.urls import path

from storage.console import activity, file, files, health, keys, links, login, nodes, preview, single_sign_on, work

app_name = "console"
urlpatterns = [
    path("", files.FilesPage.as_view(), name="files"),
    path("login", login.LoginPage.as_view(), name="login"),
    path("logout", login.LogoutPage.as_view(), name="logout"),
    path("single-sign-on", single_sign_on.BeginPage.as_view(), name="single-sign-on"),
    path("single-sign-on/return", single_sign_on.ReturnPage.as_view(), name="single-sign-on-return"),
    path("upload", files.UploadPage.as_view(), name="upload"),
    path("delete", files.DeletePage.as_view(), name="delete"),
    path("file/<str:file_hash>", file.FilePage.as_view(), name="file"),
    path("file/<str:file_hash>/copies", file.CopiesPage.as_view(), name="copies"),
    path("file/<str:file_hash>/rename", file.RenamePage.as_view(), name="rename"),
    path("file/<str:file_hash>/share", file.SharePage.as_view(), name="share"),
    path("file/<str:file_hash>/preview", preview.PreviewPage.as_view(), name="preview"),
    path("health", health.HealthPage.as_view(), name="health"),
    path("nodes", nodes.NodesPage.as_view(), name="nodes"),
    path("nodes/add", nodes.AddPage.as_view(), name="add_node"),
    path("nodes/<str:node_id>", nodes.NodePage.as_view(), name="node"),
    path("nodes/<str:node_id>/<str:name>", nodes.OperationPage.as_view(), name="operation"),
    path("jobs", work.JobsPage.as_view(), name="jobs"),
    path("jobs/<str:job_id>", work.JobPage.as_view(), name="job"),
    path("jobs/<str:job_id>/<str:verb>", work.ControlPage.as_view(), name="control"),
    path("links", links.LinksPage.as_view(), name="links"),
    path("activity", activity.ActivityPage.as_view(), name="activity"),
    path("keys", keys.KeysPage.as_view(), name="keys"),
    path("keys/<str:key_id>/<str:name>", keys.KeyPage.as_view(), name="key"),
]
