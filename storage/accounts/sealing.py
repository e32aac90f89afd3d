"""Secrets that the service itself must be able to read again, encrypted so that a dump of the database reveals none.

The S3 protocol signs requests with the secret of a key, so the service needs the secret to check a signature. A secret
is encrypted with AES-256-GCM under a key that is derived from SECRET_KEY, as one byte of version, 12 bytes of nonce and
the ciphertext. The id of the key is authenticated too: a ciphertext that is moved to another row cannot be decrypted.
"""

from __future__ import annotations

import hmac
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.utils.encoding import force_bytes

from storage.exceptions import SecretUnreadable

VERSION = b"\x01"
NONCE_BYTES = 12


def seal(secret: str, key_id: str) -> bytes:
    """Encrypt the secret of a key."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return VERSION + nonce + _cipher(settings.SECRET_KEY).encrypt(nonce, secret.encode(), key_id.encode())


def unseal(sealed: bytes, key_id: str) -> str:
    """Decrypt the secret of a key.

    Raises:
        SecretUnreadable: the secret was encrypted for another key, or under a SECRET_KEY that is neither the present
            one nor one of SECRET_KEY_FALLBACKS.
    """
    version, nonce, ciphertext = sealed[:1], sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
    if version == VERSION:
        for secret_key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
            try:
                return _cipher(secret_key).decrypt(nonce, ciphertext, key_id.encode()).decode()
            except InvalidTag:
                continue
    raise SecretUnreadable(f"the secret of key {key_id} was encrypted under another SECRET_KEY")


def _cipher(secret_key: str | bytes) -> AESGCM:
    return AESGCM(hmac.digest(force_bytes(secret_key), b"keys", "sha256"))
