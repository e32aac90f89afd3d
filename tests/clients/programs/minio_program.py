import io
import urllib.request

import checks
from checks import BUCKET, HARD, same
from minio import Minio
from minio.commonconfig import CopySource
from minio.deleteobjects import DeleteObject

s3 = Minio(checks.HOST, access_key=checks.KEY, secret_key=checks.SECRET, region=checks.REGION, secure=False)
s3.make_bucket(BUCKET)
same(s3.bucket_exists(BUCKET), True)
for name in HARD:
    s3.put_object(BUCKET, name, io.BytesIO(name.encode()), len(name.encode()), metadata={"x-amz-meta-note": "1"})
for name in HARD:
    same(s3.get_object(BUCKET, name).read(), name.encode())
    same(s3.stat_object(BUCKET, name).metadata["x-amz-meta-note"], "1")
same(sorted(found.object_name for found in s3.list_objects(BUCKET, recursive=True)), sorted(HARD))
same([found.object_name for found in s3.list_objects(BUCKET) if found.is_dir], ["é/"])
data = checks.large()
s3.put_object(BUCKET, "large", io.BytesIO(data), -1, part_size=16 << 20)
same(s3.get_object(BUCKET, "large").read() == data, True)
s3.copy_object(BUCKET, "copy", CopySource(BUCKET, "large"))
same(s3.stat_object(BUCKET, "copy").size, len(data))
address = s3.presigned_put_object(BUCKET, "pre signed")
urllib.request.urlopen(urllib.request.Request(address, b"presigned", method="PUT"))
same(urllib.request.urlopen(s3.presigned_get_object(BUCKET, "pre signed")).read(), b"presigned")
names = [found.object_name for found in s3.list_objects(BUCKET, recursive=True)]
same(list(s3.remove_objects(BUCKET, [DeleteObject(name) for name in names])), [])
s3.remove_bucket(BUCKET)
checks.finish()
