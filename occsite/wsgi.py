"""The WSGI application that gunicorn serves: the API with the administration and the console, and the S3 door."""

import os
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "occsite.settings")
django.setup(set_prefix=False)

from storage.api.downloads.wsgi import Downloads  # noqa: E402  Django must be set up first
from storage.api.metrics import requests  # noqa: E402
from storage.api.wsgi.forwarding import Forwarded  # noqa: E402
from storage.api.wsgi.gate import Gate  # noqa: E402
from storage.api.wsgi.hosts import Handler, Hosts  # noqa: E402
from storage.api.wsgi.middleware import RequestLog  # noqa: E402
from storage.api.wsgi.protection import Protection  # noqa: E402
from storage.conf import configuration  # noqa: E402
from storage.s3 import door  # noqa: E402

_api = RequestLog(Protection(Hosts(Gate(Downloads(Handler())))))
_s3 = RequestLog(Protection(door.Door(), is_for_objects=True), route_of=door.route_of)


def _by_port(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Give a request to the door whose port it has come to."""
    if environ["SERVER_PORT"] == str(configuration().s3_port):
        return _s3(environ, start_response)
    return _api(environ, start_response)


application = Forwarded(_by_port)
requests.process_started()
