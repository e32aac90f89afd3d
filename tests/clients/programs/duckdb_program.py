import checks
import duckdb
from checks import BUCKET, same


base = duckdb.connect(config={"autoinstall_known_extensions": False})
try:
    from duckdb_extensions import import_extension

    import_extension("httpfs")
except ImportError:
    base.execute("INSTALL httpfs")
base.execute("LOAD httpfs")
base.execute(
    f"""CREATE SECRET occ (TYPE s3, KEY_ID '{checks.KEY}', SECRET '{checks.SECRET}', REGION '{checks.REGION}',
        ENDPOINT '{checks.HOST}', URL_STYLE 'path', USE_SSL false)"""
)
base.execute("CREATE TABLE numbers AS SELECT range AS number, 'word ' || range AS word FROM range(1000000)")
base.execute(f"COPY numbers TO 's3://{BUCKET}/numbers.parquet' (FORMAT parquet, ROW_GROUP_SIZE 50000)")
base.execute(f"COPY numbers TO 's3://{BUCKET}/a b+c/numbers.csv'")
base.execute(
    f"COPY (SELECT *, number % 3 AS part FROM numbers) TO 's3://{BUCKET}/parts' (FORMAT parquet, PARTITION_BY part)"
)
same(base.execute(f"SELECT sum(number) FROM 's3://{BUCKET}/numbers.parquet'").fetchone()[0], 499999500000)
same(
    base.execute(f"SELECT word FROM 's3://{BUCKET}/numbers.parquet' WHERE number = 777777").fetchone()[0], "word 777777"
)
same(base.execute(f"SELECT count(*) FROM 's3://{BUCKET}/a b+c/numbers.csv'").fetchone()[0], 1000000)
same(base.execute(f"SELECT count(*) FROM 's3://{BUCKET}/parts/*/*.parquet' WHERE part = 1").fetchone()[0], 333333)
checks.finish()
