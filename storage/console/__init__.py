"""The pages for people. The console shows what the API answers, and does what the API lets its user do (ADR 28).

- ``client``: requests to the API from within the process.
- ``page``: what all pages have in common: who looks, and what an error looks like.
- ``files``, ``file``, ``preview``: the user's files. ``names``: how addresses name them. ``undoing``: the offer to
  take a deletion back.
- ``buckets``: the objects that programs have stored through the S3 door.
- ``health``, ``nodes``, ``work``: whether everything works; the nodes; jobs. ``plots``, ``timelines``: their pictures.
- ``links``, ``activity``, ``keys``: all share links; who did what; what programs log in with.
- ``login``, ``single_sign_on``: sessions. ``words``: sizes, times and states as people read them.
"""
