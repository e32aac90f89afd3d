import { createHash, randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import * as s3 from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import { getSignedUrl } from "@aws-sdk/s3-request-presigner";

const client = new s3.S3Client({ endpoint: process.env.S3_ENDPOINT, region: "occ", forcePathStyle: true });
const Bucket = "clients-" + randomBytes(4).toString("hex");
const hard = ["a b", "a+b", "a%2Fb", "é/ü", "😀 emoji", "quote'\"&<>", "(x)[y]{z}", "a=b;c,d:e@f$g", "~tilde", "x".repeat(1024)];
const size = Number(process.env.LARGE ?? 200 * 2 ** 20);
let done = 0;
function same(found, expected) {
  if (JSON.stringify(found) !== JSON.stringify(expected)) throw new Error(`${JSON.stringify(found)} is not ${JSON.stringify(expected)}`);
  done += 1;
}
const sha = (data) => createHash("sha256").update(data).digest("hex");
const send = (name, input) => client.send(new s3[name + "Command"]({ Bucket, ...input }));

await send("CreateBucket");
for (const Key of hard) await send("PutObject", { Key, Body: Key, Metadata: { note: "one" } });
for (const Key of hard) {
  const found = await send("GetObject", { Key });
  same(await found.Body.transformToString(), Key);
  same(found.Metadata, { note: "one" });
}
const listed = await send("ListObjectsV2");
same(listed.Contents.map((entry) => entry.Key).sort(), [...hard].sort());
same((await send("ListObjectsV2", { Delimiter: "/" })).CommonPrefixes, [{ Prefix: "é/" }]);
// A stream has no length and no checksum beforehand: the SDK sends it in chunks, with a trailer.
await send("PutObject", { Key: "stream", Body: Readable.from([Buffer.from("str"), Buffer.from("eam")]), ContentLength: 6 });
same(await (await send("GetObject", { Key: "stream" })).Body.transformToString(), "stream");
const data = randomBytes(size);
await new Upload({ client, params: { Bucket, Key: "large", Body: data }, partSize: 16 * 2 ** 20 }).done();
same(sha(await (await send("GetObject", { Key: "large" })).Body.transformToByteArray()), sha(data));
await send("CopyObject", { Key: "copy", CopySource: `${Bucket}/large` });
same((await send("HeadObject", { Key: "copy" })).ContentLength, size);
for (const ChecksumAlgorithm of ["CRC32", "CRC32C", "SHA1", "SHA256"]) {
  await send("PutObject", { Key: "sum", Body: "sum", ChecksumAlgorithm });
  same(await (await send("GetObject", { Key: "sum", ChecksumMode: "ENABLED" })).Body.transformToString(), "sum");
}
const put = await getSignedUrl(client, new s3.PutObjectCommand({ Bucket, Key: "pre signed" }));
same((await fetch(put, { method: "PUT", body: "presigned" })).status, 200);
const get = await getSignedUrl(client, new s3.GetObjectCommand({ Bucket, Key: "pre signed" }));
same(await (await fetch(get)).text(), "presigned");
const keys = (await send("ListObjectsV2")).Contents.map(({ Key }) => ({ Key }));
same((await send("DeleteObjects", { Delete: { Objects: keys } })).Deleted.length, keys.length);
await send("DeleteBucket");
console.log(`${done} checks`);
