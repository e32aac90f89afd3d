import io
import urllib.request

import boto3
import checks
from botocore.config import Config
from botocore.exceptions import ClientError
from checks import BUCKET, HARD, same

config = Config(s3={"addressing_style": "path"})
s3 = boto3.client("s3", endpoint_url=checks.ENDPOINT, region_name=checks.REGION, config=config)
s3.create_bucket(Bucket=BUCKET)
same(BUCKET in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]], True)
for number, name in enumerate(HARD):
    s3.put_object(
        Bucket=BUCKET, Key=name, Body=name.encode(), Metadata={"number": str(number)}, ContentType="text/plain"
    )
for number, name in enumerate(HARD):
    found = s3.get_object(Bucket=BUCKET, Key=name)
    same(found["Body"].read(), name.encode())
    same(found["Metadata"], {"number": str(number)})
    same(found["ContentType"], "text/plain")
same(sorted(entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET)["Contents"]), sorted(HARD))
same(sorted(entry["Key"] for entry in s3.list_objects(Bucket=BUCKET)["Contents"]), sorted(HARD))
listed = s3.list_objects_v2(Bucket=BUCKET, Delimiter="/")
same([entry["Prefix"] for entry in listed["CommonPrefixes"]], ["é/"])

data = checks.large()
s3.upload_fileobj(io.BytesIO(data), BUCKET, "large")
target = io.BytesIO()
s3.download_fileobj(BUCKET, "large", target)
same(target.getvalue() == data, True)
same(s3.get_object(Bucket=BUCKET, Key="large", Range="bytes=8388600-8388620")["Body"].read(), data[8388600:8388621])
s3.copy({"Bucket": BUCKET, "Key": "large"}, BUCKET, "copy of large")
same(s3.get_object(Bucket=BUCKET, Key="copy of large")["Body"].read() == data, True)
for algorithm in ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"):
    put = s3.put_object(Bucket=BUCKET, Key="sum", Body=b"sum", ChecksumAlgorithm=algorithm)
    head = s3.head_object(Bucket=BUCKET, Key="sum", ChecksumMode="ENABLED")
    same(head[f"Checksum{algorithm}"], put[f"Checksum{algorithm}"])

address = s3.generate_presigned_url("put_object", {"Bucket": BUCKET, "Key": "pre signed+"})
urllib.request.urlopen(urllib.request.Request(address, b"presigned", method="PUT"))
address = s3.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": "pre signed+"})
same(urllib.request.urlopen(address).read(), b"presigned")

try:
    s3.put_object(Bucket=BUCKET, Key="sum", Body=b"other", IfNoneMatch="*")
except ClientError as error:
    same(error.response["Error"]["Code"], "PreconditionFailed")
keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=BUCKET)["Contents"]]
s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in keys]})
same(s3.list_objects_v2(Bucket=BUCKET)["KeyCount"], 0)
s3.delete_bucket(Bucket=BUCKET)
checks.finish()
