"""Django settings. ``storage.conf`` reads most of the settings that an operator may change."""

import logging
import os
from pathlib import Path

import django_stubs_ext
from corsheaders.defaults import default_headers

from occsite import addresses, logs, sentry
from occsite.launch import embedded
from occsite.launch.secret import read_secret
from occsite.postgresql.connection import PATIENCE
from occsite.signature import COMMAND, PROGRAM, signature
from storage.conf import VERSION, Configuration
from storage.exceptions import ConfigurationError

django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent
OCC = Configuration.from_environment(os.environ)

DEBUG = OCC.debug
# Before the first start there is no SECRET_KEY. Django refuses to sign or to encrypt anything with an empty secret.
SECRET_KEY = OCC.secret_key or read_secret(OCC.storage_dir) or ""
ALLOWED_HOSTS = [host for host in os.environ.get("ALLOWED_HOSTS", "*").split(",") if host]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "corsheaders",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "storage",
    "storage.console",
    "occsite",
]

MIDDLEWARE = [
    "occsite.middleware.Cors",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "occsite.middleware.Sessions",
    "django.middleware.common.CommonMiddleware",
    "occsite.middleware.Csrf",
    "occsite.middleware.Authentication",
    "occsite.middleware.Actors",
    "occsite.middleware.Messages",
    "occsite.middleware.Filters",
]

SILENCED_SYSTEM_CHECKS = [
    # storage.api.wsgi.protection sets the fields of SecurityMiddleware and XFrameOptionsMiddleware. Django's middleware
    # would miss plain downloads, and requests that are refused before Django.
    "security.W001",
    "security.W002",
    # occsite.middleware.Csrf is Django's CsrfViewMiddleware, but only for the pages of the administration and the
    # console.
    "security.W003",
    # occsite.middleware marks the cookies of answers over TLS as Secure. Over plain HTTP on this machine, a browser
    # would not send a Secure cookie back, and nobody could log in.
    "security.W010",
]

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

ROOT_URLCONF = "occsite.urls"
CSRF_FAILURE_VIEW = "storage.api.errors.csrf_failure"
LOGIN_REDIRECT_URL = "admin:index"  # After a login, a browser that asked for a page of another site goes here.
WSGI_APPLICATION = "occsite.wsgi.application"
APPEND_SLASH = False
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
DATETIME_FORMAT = "Y-m-d H:i"  # The admin pages show every time in this form, in UTC.
DATE_FORMAT = "Y-m-d"
TIME_FORMAT = "H:i"
STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# -- PostgreSQL, Redis, Celery ---------------------------------------------

DATABASE_URL = OCC.database_url or embedded.database_url(OCC.storage_dir)
REDIS_URL = addresses.redis_url(OCC.redis_url or embedded.redis_url(OCC.storage_dir))

_database = addresses.database_config(DATABASE_URL)
_database["ENGINE"] = "occsite.postgresql"
_database["OPTIONS"] = {
    **_database.get("OPTIONS", {}),
    "connect_timeout": 3,
    "application_name": signature(os.environ.get(PROGRAM, COMMAND), OCC, SECRET_KEY),
    "prepare_threshold": 5,  # The setting lets statements ask to be prepared; the ORM's statements never ask.
    "options": f"-c statement_timeout={PATIENCE}s -c idle_in_transaction_session_timeout=120000"
    # The following options are for prepared statements and for the statements of triggers. All statements of these two
    # kinds look up a few rows by their keys. By default PostgreSQL would make a new plan at each call of a statement
    # with a list of keys, because it expects longer lists. So the options tell PostgreSQL to keep the plan of a
    # statement. A plan may be made while a table is so small that a scan of the whole table seems best. Sequential
    # scans are off, so a plan that was made for a small table stays good when the table grows.
    " -c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c jit=off",
    "pool": 16,
}
DATABASES = {"default": _database}

CELERY_BROKER_URL = addresses.broker_url(REDIS_URL)

# -- REST ------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_RENDERER_CLASSES": [
        "storage.api.rendering.JsonRenderer",
        "storage.api.pages.renderer.PageRenderer",
    ],
    # ``storage.api.authorization`` checks keys, and DRF does not. With DRF's session authentication, a plain POST from
    # a browser in which an admin is logged in would fail the CSRF check.
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "UNAUTHENTICATED_USER": None,
    "EXCEPTION_HANDLER": "storage.api.errors.problem_response",
    "URL_FORMAT_OVERRIDE": None,
    "DEFAULT_SCHEMA_CLASS": "storage.api.schema.operations.Schema",
}

SPECTACULAR_SETTINGS = {
    "TITLE": "OCC Storage",
    "DESCRIPTION": "A content-addressed, replicated file store. Every error is a problem document (RFC 9457). A "
    "browser gets a page instead of JSON. HEAD works wherever GET does. An unknown query parameter gets a 400.",
    "VERSION": VERSION,
    "OAS_VERSION": "3.1.1",
    "SORT_OPERATIONS": False,
    "SORT_OPERATION_PARAMETERS": False,
    "COMPONENT_SPLIT_REQUEST": True,
    "COMPONENT_SPLIT_PATCH": False,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "POSTPROCESSING_HOOKS": [
        "storage.api.schema.hooks.drop_marks",
        "storage.api.schema.hooks.allow_overlap",
        "storage.api.schema.hooks.add_heads",
        "storage.api.schema.hooks.add_example_of_problem",
    ],
}

CORS_ALLOWED_ORIGINS = [origin for origin in os.environ.get("CORS_ALLOWED_ORIGINS", "").split(",") if origin]
CORS_ALLOW_HEADERS = [
    *default_headers,
    "content-digest",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "prefer",
    "range",
    "repr-digest",
    "traceparent",
    "tus-resumable",
    "upload-checksum",
    "upload-complete",
    "upload-concat",
    "upload-defer-length",
    "upload-draft-interop-version",
    "upload-length",
    "upload-metadata",
    "upload-offset",
    "x-http-method-override",
    "x-request-id",
]
CORS_EXPOSE_HEADERS = [
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Location",
    "Content-Range",
    "ETag",
    "Last-Modified",
    "Location",
    "Preference-Applied",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
    "Repr-Digest",
    "Retry-After",
    "X-Request-ID",
    "Tus-Checksum-Algorithm",
    "Tus-Extension",
    "Tus-Max-Size",
    "Tus-Resumable",
    "Tus-Version",
    "Undo-Location",
    "Upload-Complete",
    "Upload-Concat",
    "Upload-Defer-Length",
    "Upload-Draft-Interop-Version",
    "Upload-Expires",
    "Upload-Length",
    "Upload-Metadata",
    "Upload-Offset",
]

# -- logs: one JSON object a line, events with ids ---------------------------

LOG_LEVEL = os.environ.get("LOG_LEVEL", "INFO").upper()
if LOG_LEVEL not in logging.getLevelNamesMapping():
    raise ConfigurationError(f"LOG_LEVEL={LOG_LEVEL!r} is none of DEBUG, INFO, WARNING, ERROR, CRITICAL")
LOGGING = logs.configure(LOG_LEVEL, *([sentry.report] if OCC.sentry_dsn else []))
if OCC.sentry_dsn:
    sentry.begin(OCC.sentry_dsn)
