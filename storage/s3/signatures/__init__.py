"""Signature Version 4 of AWS, as S3 uses it. Pure functions.

Source: "Authenticating Requests (AWS Signature Version 4)" in the Amazon S3 API Reference.
"""
