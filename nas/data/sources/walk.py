"""The files of a folder, each once: hidden ones are left out, and links must not lead out of the folder."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from espalier.nas.errors import UserError

NOT_FILES_OF_USERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "Thumbs.db")
"""What operating systems and network drives put into folders; names that begin with a dot are hidden as well."""


@dataclass
class Walked:
    """What was found below some folders.

    Attributes:
        files: the files below each of the folders, sorted by folder and name.
        repeated: how many further names of the same files were left out: links and hard links.
    """

    files: list[list[Path]]
    repeated: int = 0


@dataclass
class _Walk:
    """One walk. A file or folder is known by its device and inode, whatever its name."""

    inside: Path
    walked: Walked
    seen: set[tuple[int, int]] = field(default_factory=set)
    links: deque[tuple[int, Path]] = field(default_factory=deque)

    def enter(self, index: int, path: Path) -> None:
        """Take a file, or all that is below a folder, for the folder of this index; links wait."""
        pending = [path]
        while pending:
            at = pending.pop()
            if not (at.is_dir() or at.is_file()):  # a pipe or a device, which may never end
                continue
            if self._is_known(at):
                self.walked.repeated += at.is_file()
                continue
            if at.is_file():
                self.walked.files[index].append(at)
                continue
            entries = visible(at)
            self.links += [(index, entry) for entry in entries if entry.is_symlink()]
            pending += [entry for entry in reversed(entries) if not entry.is_symlink()]

    def follow(self) -> None:
        """Follow the links that were met, now that all files have been taken where they really are."""
        while self.links:
            index, link = self.links.popleft()
            target = link_target(link, self.inside)
            if link.parent.resolve().is_relative_to(target):
                self.walked.repeated += 1  # a link to a folder that contains it
            else:
                self.enter(index, link)

    def _is_known(self, path: Path) -> bool:
        status = path.stat()
        key = (status.st_dev, status.st_ino)
        if key in self.seen:
            return True
        self.seen.add(key)
        return False


def each_once(folders: Sequence[Path], inside: Path) -> Walked:
    """All visible files below some folders. A file that has several names belongs to the folder where it really is.

    Args:
        folders: where to look.
        inside: the folder that links must not lead out of; it contains the folders.

    Raises:
        UserError: a link is broken or leads out of the folder, or a folder cannot be read.
    """
    walk = _Walk(inside.resolve(), Walked([[] for _ in folders]))
    for index, folder in enumerate(folders):
        if folder.is_symlink():
            walk.links.append((index, folder))
        else:
            walk.enter(index, folder)
    walk.follow()
    for files in walk.walked.files:
        files.sort(key=lambda file: (str(file.parent), file.name))
    return walk.walked


def visible(folder: Path) -> list[Path]:
    """What is in a folder, sorted by name, without hidden files and folders.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(str(folder), f"cannot be read ({error.strerror})", code="unreadable") from error
    return [entry for entry in entries if not is_hidden(entry.name)]


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name was not put there by the user."""
    return name.startswith(".") or name in NOT_FILES_OF_USERS


def link_target(link: Path, inside: Path) -> Path:
    """Where a link leads to.

    Args:
        link: the link.
        inside: the folder that it must not lead out of.

    Raises:
        UserError: it is broken or leads out of the folder.
    """
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # no such file, or links in a circle
        raise UserError(str(link), "is a link that leads nowhere", code="not_found") from error
    if not target.is_relative_to(inside.resolve()):
        problem = f"is a link out of {inside}, to {target}; copy what it links to, or give a folder that contains both"
        raise UserError(str(link), problem, code="conflict")
    return target
