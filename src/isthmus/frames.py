"""Results as pandas tables; pandas (the extra ``frames``) is loaded when a table is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from isthmus.errors import missing_dependency

if TYPE_CHECKING:
    from pandas import DataFrame


def by_round(columns: Mapping[str, Any]) -> DataFrame:
    """Return named columns, one number a round from round 0 on, as a table with the index "round".

    Raises:
        MissingDependency: pandas is not installed.
    """
    table = _pandas().DataFrame(dict(columns))
    return table.rename_axis("round")


def of_rows(rows: Sequence[Mapping[str, Any]]) -> DataFrame:
    """Return rows as a table; where every row has a "round" that no other has, it is the index.

    Raises:
        MissingDependency: pandas is not installed.
    """
    table = _pandas().DataFrame(list(rows))
    return table.set_index("round") if "round" in table and table["round"].is_unique else table


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise missing_dependency("to_frame", error) from error
    return pandas
