"""Download a kernel from its distribution's archive, by apt in a folder of its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from .table import KEYS, Kernel

_SYSTEM_KEYS = Path("/usr/share/keyrings")


class MissingError(RuntimeError):
    """Something that a run needs is not there; the message says how to get it."""


def kernel_image(kernel: Kernel, folder: Path) -> Path:
    """Return the kernel's boot image, downloaded once into ``folder``.

    Raises:
        MissingError: There is no apt, or the archive cannot be reached.
    """
    target = folder / f"vmlinuz-{kernel.version}"
    if target.exists():
        return target
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise MissingError(
            "kernels are downloaded by apt-get and dpkg-deb: run this on Debian or Ubuntu"
        )
    apt = _Apt(folder / f"apt-{kernel.version}", kernel.archives, _keyring(kernel.keyring, folder))
    package = apt.image_of(kernel.package)
    files = apt.unpack(package)
    found = next((files / "boot").glob("vmlinuz-*"))
    shutil.copyfile(found, target)
    (folder / f"package-{kernel.version}").write_text(f"{package} {apt.version_of(package)}")
    shutil.rmtree(apt.folder)
    return target


def package_name(kernel: Kernel, folder: Path) -> str:
    """Return the name and version of the package of a downloaded kernel."""
    return (folder / f"package-{kernel.version}").read_text()


def _keyring(name: str, folder: Path) -> Path:
    """Return an archive's keys: this machine's, or those that Debian distributes."""
    for place in (_SYSTEM_KEYS / name, folder / name):
        if place.exists():
            return place
    archive, package = KEYS
    apt = _Apt(folder / "apt-keys", (archive,), _SYSTEM_KEYS / "debian-archive-keyring.gpg")
    shutil.copyfile(apt.unpack(package) / "usr/share/keyrings" / name, folder / name)
    shutil.rmtree(apt.folder)
    return folder / name


class _Apt:
    """apt with sources, lists and cache of its own, which does not touch the system's."""

    def __init__(self, folder: Path, archives: tuple[str, ...], keyring: Path) -> None:
        self.folder = folder
        for name in ("state/lists/partial", "cache/archives/partial", "empty"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        lines = "".join(f"deb [arch=amd64 signed-by={keyring}] {line}\n" for line in archives)
        (folder / "sources.list").write_text(lines)
        self._options = [
            f"-oDir::Etc::SourceList={folder}/sources.list",
            f"-oDir::Etc::SourceParts={folder}/empty",
            f"-oDir::State={folder}/state",
            f"-oDir::State::status={folder}/status",
            f"-oDir::Cache={folder}/cache",
            "-oAPT::Sandbox::User=root",
            "-oAPT::Architecture=amd64",
            "-oAcquire::Languages=none",
        ]
        self._run("apt-get", "update")

    def image_of(self, package: str) -> str:
        """Return the image package that a metapackage depends on."""
        lines = self._run("apt-cache", "depends", package).splitlines()
        names = [line.split()[-1] for line in lines if "Depends: linux-image-" in line]
        if not names:
            raise MissingError(
                f"{package} depends on no linux-image-… in {self.folder}/sources.list"
            )
        return names[0]

    def version_of(self, package: str) -> str:
        """Return the version of a package."""
        lines = self._run("apt-cache", "show", package).splitlines()
        return next(line.split()[-1] for line in lines if line.startswith("Version:"))

    def unpack(self, package: str) -> Path:
        """Download a package and return the folder of its files."""
        self._run("apt-get", "download", package)
        files = self.folder / "files"
        subprocess.run(["dpkg-deb", "-x", *self.folder.glob("*.deb"), files], check=True)
        return files

    def _run(self, command: str, *words: str) -> str:
        done = subprocess.run(
            [command, *self._options, *words],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            shown = (self.folder / "sources.list").read_text()
            raise MissingError(
                f"{command} {' '.join(words)} failed for\n{shown}{done.stderr[-1000:]}"
            )
        return done.stdout
