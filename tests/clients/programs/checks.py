"""What the programs of all families share: the service's address, a bucket, hard names, and the number of checks."""

import hashlib
import os
import secrets

ENDPOINT = os.environ["S3_ENDPOINT"]
HOST = ENDPOINT.partition("://")[2]
KEY, SECRET = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
REGION = "occ"
BUCKET = os.environ.get("S3_BUCKET") or "clients-" + secrets.token_hex(4)
LARGE = int(os.environ.get("LARGE", 200 << 20))
HARD = ["a b", "a+b", "a%2Fb", "é/ü", "😀 emoji", "quote'\"&<>", "(x)[y]{z}", "a=b;c,d:e@f$g", "~tilde", "x" * 1024]

done = 0


def same(found: object, expected: object) -> None:
    """Fail unless both values are equal; add one to the number of checks."""
    global done
    assert found == expected, (str(found)[:200], str(expected)[:200])
    done += 1


def large() -> bytes:
    """``LARGE`` bytes, in which no two chunks are equal."""
    block = hashlib.sha256(BUCKET.encode()).digest() * 512
    rounds = range(LARGE // len(block) + 1)
    return b"".join(number.to_bytes(8, "big") + block[8:] for number in rounds)[:LARGE]


def finish() -> None:
    print(f"{done} checks")
