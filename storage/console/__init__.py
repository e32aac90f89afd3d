"""The console: pages for people. It shows what the public API answers, and does what the API lets its user do (ADR 28).

- ``client``: requests to the API from within the process.
- ``page``: what all pages have in common: who looks, and what an error looks like.
- ``files``, ``file``, ``sharing``, ``preview``: the user's files.
- ``cluster``, ``work``: nodes and health; jobs. ``plots``: their pictures.
- ``login``: sessions. ``words``: sizes, times and states as people read them.
"""
