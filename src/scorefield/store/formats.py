"""The number of the format that files are written in, and what later versions call what earlier ones wrote.

A file says its format and the version of scorefield that wrote it; one without a number has format 0. To improve a
name in files: raise `FORMAT`, add the old name to a table of renames here, and a run of today to tests/old_runs.
"""

from __future__ import annotations

from collections.abc import Mapping

from scorefield import __version__
from scorefield.runtime.errors import InputError

__all__ = [
    "FORMAT",
    "RENAMED_KEYS",
    "RENAMED_KINDS",
    "check_format",
    "first_names",
    "stamp",
    "upgraded",
    "without_stamp",
]

FORMAT = 1
# Of the tables of config.toml: what was written by a format below 1 -> what it is called now.
RENAMED_KINDS: Mapping[str, Mapping[str, str]] = {
    "process": {"continuous-vp": "vp", "continuous-ve": "ve"},
}
RENAMED_KEYS: Mapping[str, Mapping[str, str]] = {}

_STAMP = ("format", "scorefield")


def stamp() -> dict[str, object]:
    """What a file that is written now says of itself."""
    return {"format": FORMAT, "scorefield": __version__}


def without_stamp(values: Mapping[str, object]) -> dict[str, object]:
    """What a file says beside its format and version."""
    return {name: value for name, value in values.items() if name not in _STAMP}


def check_format(values: Mapping[str, object], where: object) -> int:
    """The format of a file that says these values; 0 where it says none.

    Args:
        where: The file, for the message.
    Raises:
        InputError: If a newer scorefield wrote it, or it is no number.
    """
    found = values.get("format", 0)
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise InputError(f"{where}: format must be a number, got {found!r}")
    if found > FORMAT:
        raise InputError(
            f"{where} was written by a newer scorefield (format {found}, version {values.get('scorefield', 'unknown')}; "
            f"this one, {__version__}, reads up to format {FORMAT}): upgrade scorefield"
        )
    return found


def upgraded(tables: Mapping[str, object], where: object) -> dict[str, object]:
    """The tables of a config.toml or a recipe of any format so far, as today's says them, without the stamp."""
    old = check_format(tables, where) < FORMAT
    values = without_stamp(tables)
    if not old:
        return values
    return {
        name: _renamed(table, RENAMED_KEYS.get(name, {}), RENAMED_KINDS.get(name, {}))
        if isinstance(table, Mapping)
        else table
        for name, table in values.items()
    }


def first_names(config: Mapping[str, object], table: str) -> dict[str, object]:
    """A description with the names that the first version wrote, by which stored samples are found again."""
    keys, kinds = RENAMED_KEYS.get(table, {}), RENAMED_KINDS.get(table, {})
    back = [{new: old for old, new in names.items()} for names in (keys, kinds)]
    return _renamed(config, *back)


def _renamed(
    table: Mapping[str, object], keys: Mapping[str, str], kinds: Mapping[str, str]
) -> dict[str, object]:
    """A table with other keys and kinds; also in the tables within it, such as an interpolated process's."""
    found = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            value = _renamed(value, keys, kinds)
        elif name == "kind" and isinstance(value, str):
            value = kinds.get(value, value)
        found[keys.get(name, name)] = value
    return found
