"""The S3 door: buckets and objects for existing clients of S3. Start to read at the module ``door``."""
