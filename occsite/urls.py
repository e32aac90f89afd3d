from django.contrib import admin
from django.urls import include, path, re_path

from storage.admin.login import login
from storage.api.pages.renderer import icon, robots, security_contact
from storage.api.wsgi import slashes

urlpatterns = [
    re_path(r"^admin(?://+)?\Z", slashes.with_slash),
    path("admin/login/", login),
    path("admin/", admin.site.urls),
    path("favicon.ico", icon),
    path("robots.txt", robots),
    path(".well-known/security.txt", security_contact),
    path("", include("storage.api.urls")),
]

handler400 = "storage.api.errors.bad_request"
handler403 = "storage.api.errors.forbidden"
handler404 = "storage.api.errors.not_found"
handler500 = "storage.api.errors.server_error"
