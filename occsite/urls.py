from django.contrib import admin
from django.http import HttpRequest, HttpResponseBase
from django.urls import include, path, re_path
from django.views.decorators.csrf import csrf_exempt

from storage.admin.login import login
from storage.api.authorization import is_for_console
from storage.api.pages.renderer import icon, robots, security_contact
from storage.api.views import RootView
from storage.api.wsgi import slashes
from storage.console.files import FilesPage

_console, _api = FilesPage.as_view(), RootView.as_view()


@csrf_exempt  # The two pages change nothing. The API answers other methods with a 405, as on every address.
def root(request: HttpRequest) -> HttpResponseBase:
    """Show a browser the console. Answer every other client with the entry points of the API."""
    return (_console if is_for_console(request.META) else _api)(request)


urlpatterns = [
    path("", root),
    re_path(r"^console(?://+)?\Z", slashes.with_slash),
    path("console/", include("storage.console.urls")),
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
