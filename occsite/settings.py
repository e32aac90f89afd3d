"""Django settings. What an operator may set is read by ``storage.conf``; the rest is fixed here."""

import logging
import os
from pathlib import Path

import django_stubs_ext
from corsheaders.defaults import default_headers

from occsite import addresses, logs
from occsite.launch import embedded
from occsite.launch.secret import read_secret
from occsite.postgresql.connection import PATIENCE
from storage.conf import Configuration
from storage.exceptions import ConfigurationError

django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent
OCC = Configuration.from_environment(os.environ)

DEBUG = OCC.debug
SECRET_KEY = os.environ.get("SECRET_KEY") or read_secret(OCC.storage_dir) or "not-yet-made-by-the-first-start"
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
    "storage",
    "occsite",
]

MIDDLEWARE = [
    "occsite.middleware.Cors",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "occsite.middleware.Sessions",
    "django.middleware.common.CommonMiddleware",
    "occsite.middleware.Csrf",
    "occsite.middleware.Authentication",
    "occsite.middleware.Messages",
]

ROOT_URLCONF = "occsite.urls"
WSGI_APPLICATION = "occsite.wsgi.application"
APPEND_SLASH = False
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
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
    "prepare_threshold": 5,  # statements that ask to be prepared may be; those of the ORM never are
    "options": f"-c statement_timeout={PATIENCE}s -c idle_in_transaction_session_timeout=120000"
    # Of statements that are prepared, and those of triggers: all are looked up by keys, a few at a time. Left to
    # itself, PostgreSQL would plan those with lists of keys anew each time, as it takes the lists to be longer.
    # Plans are kept, also those that were made while a table was so small that to read all of it seemed best.
    " -c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c jit=off",
    "pool": 16,
}
DATABASES = {"default": _database}

CELERY_BROKER_URL = addresses.broker_url(REDIS_URL)

# -- REST ------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_RENDERER_CLASSES": [
        "storage.api.rendering.JsonRenderer",
        "rest_framework.renderers.BrowsableAPIRenderer",
    ],
    # Keys are off: the API knows one owner, nobody, and a logged-in admin's plain POST must not meet CSRF.
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "UNAUTHENTICATED_USER": None,
    "EXCEPTION_HANDLER": "storage.api.errors.problem_response",
    "URL_FORMAT_OVERRIDE": None,
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
]
CORS_EXPOSE_HEADERS = [
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Last-Modified",
    "Location",
    "Preference-Applied",
    "Repr-Digest",
    "Retry-After",
]

# -- logs: one JSON object a line, events with ids ---------------------------

LOG_LEVEL = os.environ.get("LOG_LEVEL", "INFO").upper()
if LOG_LEVEL not in logging.getLevelNamesMapping():
    raise ConfigurationError(f"LOG_LEVEL={LOG_LEVEL!r} is none of DEBUG, INFO, WARNING, ERROR, CRITICAL")
LOGGING = logs.configure(LOG_LEVEL)
