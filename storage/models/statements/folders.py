from __future__ import annotations

from storage.models.names import AFTER_SEPARATOR, FIRST, folder_of
from storage.models.statements import prepared

# The index ``file_in_folder`` has this expression.
_FOLDER = """coalesce(substring(name from '^.*/'), '') COLLATE "C" """
_NEXT = f"""
    SELECT {_FOLDER} AS path FROM storage_file WHERE owner_id = %(owner)s AND ({_FOLDER}) >= {{begin}}
     ORDER BY {_FOLDER} LIMIT 1
"""  # noqa: S608  only constants are put in
# A file may lie more than one folder below the level. The path of its folder is cut off after the first folder below
# the level.
_CUT = "left(path, %(level)s::int + strpos(substr(path, %(level)s::int + 1), '/'))"
_FOLDERS = f"""
    WITH RECURSIVE step (folder) AS (
        SELECT {_CUT} FROM ({_NEXT.format(begin="%(begin)s::text")}) AS first WHERE starts_with(path, %(prefix)s::text)
         UNION ALL
        SELECT {_CUT} FROM step, LATERAL ({_NEXT.format(begin="(left(folder, -1) || %(after)s::text)")}) AS following
         WHERE starts_with(path, %(prefix)s::text)
    )
    SELECT folder FROM step LIMIT %(most)s::int
"""  # noqa: S608  only constants are put in


def folders(owner_id: int, prefix: str, *, after: str = "", most: int) -> list[str]:
    """The folders of one level, in the order of code points, each as its whole path with a slash at the end.

    Every folder costs one search in the index, however many files are in it, below it or next to it.

    Args:
        owner_id: the row id of the owner of the files.
        prefix: the folder of the level, perhaps followed by the beginning of the names of the wanted folders in it.
        after: the last folder of the page before; empty for the first page.
        most: the largest number of folders to return.
    """
    # The folder of the level itself is left out, with the files that are directly in it.
    first = prefix + FIRST if prefix == folder_of(prefix) else prefix
    found = prepared.rows(
        _FOLDERS,
        {
            "owner": owner_id,
            "prefix": prefix,
            "level": len(folder_of(prefix)),
            "begin": after[:-1] + AFTER_SEPARATOR if after else first,
            "after": AFTER_SEPARATOR,
            "most": most,
        },
    )
    return [folder for (folder,) in found]
