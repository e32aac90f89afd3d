"""The S3 door: buckets and objects for the clients that people have already. The module ``door`` is the start."""
