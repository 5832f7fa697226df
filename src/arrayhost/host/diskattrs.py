"""Attributes of arrays that are files: a small JSON file for each array that has any, in a folder of their own.

Each names the inode of its array's file, so that attributes never pass to another array of the same name, whatever
moment a host is killed at.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import threading
from typing import TYPE_CHECKING, Any

from arrayhost.core.attributes import MAX_ATTRIBUTE_BYTES, check_attributes
from arrayhost.memory.files import replaced

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["AttributeFiles"]

log = logging.getLogger(__name__)
# The attributes with the rest, and spaces that a person may have put there.
_MOST_BYTES = 4 * MAX_ATTRIBUTE_BYTES
_NEW = ".new-"


class AttributeFiles:
    """The attributes' folder of one directory.

    Parameters
    ----------
    folder : Path
        Made when it is needed.

    Attributes
    ----------
    lock : RLock
        Held while the attributes of an array change, in memory and here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.RLock()

    def write(self, name: str, inode: int, attrs: Mapping[str, Any]) -> None:
        """Keep an array's attributes, whole and durably; the caller holds `lock`.

        Raises
        ------
        OSError
            They cannot be kept; those that were kept before still are.
        """
        if not attrs:
            self.remove(name)
            return
        with self.replaced(name) as path:
            path.write_text(self.text(inode, attrs), encoding="utf-8")

    @contextlib.contextmanager
    def replaced(self, name: str) -> Iterator[Path]:
        """Yield a file that becomes the one for an array at the end of the block.

        Raises
        ------
        OSError
        """
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if self.folder.is_symlink():
            raise NotADirectoryError(f"{self.folder} is a link, and attributes are not kept behind one")
        with replaced(self.folder / name, _NEW) as path:
            yield path

    @staticmethod
    def text(inode: int, attrs: Mapping[str, Any]) -> str:
        """What stands in such a file."""
        return json.dumps({"inode": inode, "attrs": dict(attrs)})

    def remove(self, name: str) -> None:
        """Forget an array's attributes."""
        if not self.folder.is_symlink():
            (self.folder / name).unlink(missing_ok=True)

    def read(self, name: str, inode: int, *, is_copy: bool) -> dict[str, Any]:
        """Return what is kept of an array; nothing, and a line in the log, where that makes no sense.

        Parameters
        ----------
        is_copy : bool
            Whether the directory was copied: then the inode is not what it was.
        """
        try:
            kept = json.loads(self._text(name))
            if not isinstance(kept, dict) or type(kept.get("inode")) is not int:
                raise ValueError("not what a host writes")
            if kept["inode"] != inode and not is_copy:
                log.info("attributes of another array that was named %r are left alone", name)
                return {}
            return check_attributes(kept.get("attrs", {}))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, RecursionError) as error:
            log.warning("%s is left alone, and the array has no attributes: %s", self.folder / name, error)
            return {}

    def _text(self, name: str) -> str:
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        finally:
            os.close(folder)
        with open(fd, "rb") as file:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid() or about.st_size > _MOST_BYTES:
                raise ValueError("no plain small file of this user's")
            return file.read(_MOST_BYTES).decode()
