"""What a directory's last host left word of: which file has which row of the control table, who made it and when.

One JSON file, replaced as a whole. It is believed only as far as it makes sense: what does not is told in the log, and
the array is served all the same.
"""

from __future__ import annotations

import json
import logging
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from arrayhost.core.records import Creator

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OWN", "STATE", "FileRow", "LastState", "read_state"]

log = logging.getLogger(__name__)

# How the names of a directory's own files begin.
OWN = ".arrayhost"
STATE = f"{OWN}-state"


class FileRow(NamedTuple):
    """One array's file.

    Attributes
    ----------
    slot, generation : int
        Its row of the control table.
    inode : int
        The file's; another one of the same name is not meant.
    created : float
        Seconds since 1970.
    creator : Creator
    """

    slot: int
    generation: int
    inode: int
    created: float
    creator: Creator


@dataclass(frozen=True)
class LastState:
    """What a host writes and the next one reads.

    Attributes
    ----------
    control : str
        The name of the control table's file; empty if there is none.
    folder : int
        The inode of the directory that was meant: in a copy of that, no inode is what it was.
    rows : dict of str to FileRow
        By the array's name.
    """

    control: str = ""
    folder: int = 0
    rows: Mapping[str, FileRow] = field(default_factory=dict)

    def to_text(self) -> str:
        """Write it for `read_state`."""
        rows = {name: [*row[:4], astuple(row.creator)] for name, row in self.rows.items()}
        return json.dumps({"control": self.control, "folder": self.folder, "rows": rows})


def read_state(file: Path) -> LastState:
    """Read the state of the last host; what cannot be read is told in the log."""
    try:
        state = json.loads(file.read_text())
        control, folder, rows = state["control"], state["folder"], dict(state["rows"])
        if type(control) is not str or type(folder) is not int:
            raise TypeError("not what a host writes")
    except FileNotFoundError:
        return LastState()
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s: the state of the last host cannot be read (%s)", file, error)
        return LastState()
    found = {}
    for name, plain in rows.items():
        try:
            found[name] = _row(plain)
        except (ValueError, TypeError) as error:
            log.warning("%s: what the last host left of array %r cannot be read (%s)", file, name, error)
    return LastState(Path(control).name, folder, found)


def _row(plain: Any) -> FileRow:
    slot, generation, inode, created, (pid, user, program) = plain
    if not all(type(number) is int and 0 <= number < 2**63 for number in (slot, generation, inode, pid)):
        raise ValueError(f"{plain!r:.80}")
    if type(created) is not float or type(user) is not str or type(program) is not str:
        raise TypeError(f"{plain!r:.80}")
    return FileRow(slot, generation, inode, created, Creator(pid, user, program))
