"""A disk of some pages, that a test can fill to the last byte: a tmpfs that only its users see.

It is mounted in a mount namespace of its own, where nobody else is, and which ends with its holder.
Mounting needs root; the fixture ``small_disks`` leaves a test out where that is not to be had.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest


class SmallDisk:
    """See the module; a context manager."""

    def __init__(self, place: Path, *, kib: int = 512, inodes: int = 64) -> None:
        """Mount it at ``place``, an empty folder, for those who are :attr:`inside`."""
        options = f"size={kib}k,nr_inodes={inodes},mode=0700"
        program = f'mount -t tmpfs -o {options} small "$0" && echo mounted && cat'
        self._place = place
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", program, str(place)],
            stdin=subprocess.PIPE,  # its end is the holder's
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "mounted\n":
            raise OSError(self._holder.communicate()[1].strip())
        namespace = (f"--target={self._holder.pid}", "--mount")
        self.inside = ("nsenter", *namespace, f"--wd={os.getcwd()}", "--")
        """What a command begins with that is to see the disk."""
        self.path = Path(f"/proc/{self._holder.pid}/root{place}")
        """The disk as those see it who are outside."""
        self._filling = self.path / "filling"

    def fill(self, *, but: int = 0) -> None:
        """To the last byte, or to so many."""
        with self._filling.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        os.truncate(self._filling, self._filling.stat().st_size - but)

    def use_up_inodes(self) -> None:
        """No file more can be made."""
        with suppress(OSError):
            for number in range(10_000):
                (self.path / f"filling-{number}").touch()

    def make_room(self) -> None:
        """Take away what filled it."""
        for file in self.path.glob("filling*"):
            file.unlink()

    def remount(self, options: str) -> None:
        """``ro`` or ``rw``."""
        mount = ["mount", "-o", f"remount,{options}", str(self._place)]
        subprocess.run([*self.inside, *mount], check=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._holder.communicate()


@pytest.fixture(scope="session")
def small_disks(tmp_path_factory: pytest.TempPathFactory) -> type[SmallDisk]:
    """The class, once it is known that it can run here."""
    missing = [name for name in ("unshare", "nsenter", "mount") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"full disks: {', '.join(missing)} missing (Debian: util-linux, mount)")
    try:
        with SmallDisk(tmp_path_factory.mktemp("disk")):
            return SmallDisk
    except OSError as error:
        pytest.skip(f"full disks: none can be mounted here, which takes root ({error})")
