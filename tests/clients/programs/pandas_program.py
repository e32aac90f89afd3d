import checks
import pandas
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet
import s3fs
from checks import BUCKET, HARD, same

options = {"key": checks.KEY, "secret": checks.SECRET, "client_kwargs": {"region_name": checks.REGION}}
files = s3fs.S3FileSystem(endpoint_url=checks.ENDPOINT, **options)
files.mkdir(BUCKET)
for name in HARD:
    files.pipe_file(f"{BUCKET}/{name}", name.encode())
files.invalidate_cache()
for name in HARD:
    same(files.cat_file(f"{BUCKET}/{name}"), name.encode())
same(sorted(files.find(BUCKET)), sorted(f"{BUCKET}/{name}" for name in HARD))
data = checks.large()
with files.open(f"{BUCKET}/large", "wb") as file:
    file.write(data)
with files.open(f"{BUCKET}/large", "rb") as file:
    file.seek(len(data) // 2)
    same(file.read(100), data[len(data) // 2 :][:100])
same(files.cat_file(f"{BUCKET}/large") == data, True)
files.copy(f"{BUCKET}/large", f"{BUCKET}/copy")
same(files.info(f"{BUCKET}/copy")["size"], len(data))

table = pandas.DataFrame({"number": range(100_000), "word": [f"word {number}" for number in range(100_000)]})
where = {"storage_options": {"endpoint_url": checks.ENDPOINT, **options}}
table.to_parquet(f"s3://{BUCKET}/table.parquet", row_group_size=10_000, **where)
table.head(100).to_csv(f"s3://{BUCKET}/table.csv", index=False, **where)
same(pandas.read_parquet(f"s3://{BUCKET}/table.parquet", columns=["number"], **where)["number"].sum(), 4999950000)
same(len(pandas.read_csv(f"s3://{BUCKET}/table.csv", **where)), 100)

arrow = pyarrow.fs.S3FileSystem(
    access_key=checks.KEY,
    secret_key=checks.SECRET,
    region=checks.REGION,
    endpoint_override=checks.HOST,
    scheme="http",
    allow_bucket_creation=True,
)
same(pyarrow.parquet.read_table(f"{BUCKET}/table.parquet", filesystem=arrow).num_rows, 100_000)
with arrow.open_output_stream(f"{BUCKET}/arrow/large") as stream:
    stream.write(data)
with arrow.open_input_file(f"{BUCKET}/arrow/large") as stream:
    same(stream.read() == data, True)
pyarrow.parquet.write_to_dataset(pyarrow.Table.from_pandas(table), f"{BUCKET}/dataset", filesystem=arrow)
same(pyarrow.dataset.dataset(f"{BUCKET}/dataset", filesystem=arrow).count_rows(), 100_000)
arrow.copy_file(f"{BUCKET}/table.parquet", f"{BUCKET}/arrow copy")
arrow.delete_dir(f"{BUCKET}/dataset")
same(arrow.get_file_info(f"{BUCKET}/dataset").type, pyarrow.fs.FileType.NotFound)
files.invalidate_cache()
files.rm(BUCKET, recursive=True)
checks.finish()
