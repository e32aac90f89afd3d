import urllib.request
from datetime import timedelta

import checks
import obstore
from checks import BUCKET, HARD, same
from obstore.store import S3Store


store = S3Store(
    BUCKET,
    endpoint=checks.ENDPOINT,
    access_key_id=checks.KEY,
    secret_access_key=checks.SECRET,
    region=checks.REGION,
    client_options={"allow_http": True, "timeout": "120s"},
)
names = [name for name in HARD if "//" not in name]
for name in names:
    obstore.put(store, name, name.encode())
for name in names:
    same(bytes(obstore.get(store, name).bytes()), name.encode())
same(sorted(found["path"] for page in obstore.list(store) for found in page), sorted(names))
same(list(obstore.list_with_delimiter(store)["common_prefixes"]), ["é"])
try:
    obstore.put(store, names[0], b"other", mode="create")
except obstore.exceptions.AlreadyExistsError:
    same(bytes(obstore.get(store, names[0]).bytes()), names[0].encode())
data = checks.large()
obstore.put(store, "large", data)
same(bytes(obstore.get(store, "large").bytes()) == data, True)
same(bytes(obstore.get_range(store, "large", start=1000, end=2000)), data[1000:2000])
obstore.copy(store, "large", "copy")
same(obstore.head(store, "copy")["size"], len(data))
address = obstore.sign(store, "GET", names[0], timedelta(minutes=1))
same(urllib.request.urlopen(address).read(), names[0].encode())
obstore.delete(store, [found["path"] for page in obstore.list(store) for found in page])
same([found for page in obstore.list(store) for found in page], [])
checks.finish()
