"""The signatures of AWS, version 4 and version 2, as S3 uses them. Pure functions."""
