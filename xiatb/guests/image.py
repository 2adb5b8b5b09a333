"""Guest images: built in two cached stages under /var/lib/xiatb/images.

    base-<key>/   the Debian tree and the kernel; key: package list, exclusions, recipe (minutes to make)
    <id>/         vmlinuz, initrd, root.qcow2, manifest.json; id: base key, xiatb's guest code (seconds)

Directories appear by rename under a lock, so a reader sees a whole image or none; images that no
lab uses are pruned when newer ones exist.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xiatb
from xiatb.errors import HostNotAbleError, XiatbError
from xiatb.guests import cpio, recipe
from xiatb.guests.rootfs import Progress, build_base, compile_python, run

IMAGES = Path("/var/lib/xiatb/images")
LABS = Path("/run/xiatb")
BUSYBOX = Path("/bin/busybox")
TOOLS = ("mmdebstrap", "mke2fs", "qemu-img", "apt-get", "dpkg-deb", "chroot")
KEEP = 3
GUEST_CODE = "usr/lib/xiatb"


@dataclass(frozen=True)
class Image:
    """A finished guest image."""

    id: str
    directory: Path
    manifest: dict[str, Any]

    @property
    def kernel(self) -> Path:
        """The kernel, for QEMU's -kernel."""
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """The initramfs without any guest's configuration."""
        return self.directory / "initrd"

    @property
    def root(self) -> Path:
        """The qcow2 root disk; copied for each guest."""
        return self.directory / "root.qcow2"


def _digest(*parts: bytes) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "big") + part)
    return total.hexdigest()[:16]


def base_key() -> str:
    """The cache key of the first stage."""
    lists = [recipe.SUITE, recipe.KERNEL_PACKAGE, recipe.PACKAGES, recipe.DPKG_EXCLUDES, recipe.TRIM]
    text = json.dumps([*lists, recipe.KERNEL_MODULES])
    here = Path(__file__).parent
    return _digest(text.encode(), (here / "rootfs.py").read_bytes())


def guest_files(package: Path) -> list[tuple[str, Path]]:
    """(path below the guest's code directory, source file) of all that a guest carries, sorted."""
    found: list[tuple[str, Path]] = []
    for part in recipe.XIATB_PARTS:
        source = package / part
        candidates = [source] if source.is_file() else sorted(source.rglob("*"))
        for path in candidates:
            wanted = path.suffix == ".py" and not any(map(path.match, recipe.XIATB_LEFT_OUT))
            if wanted and path.is_file():
                found.append((f"xiatb/{path.relative_to(package)}", path))
    configs = package.parent / "click_configs"
    found += [(f"click_configs/{path.name}", path) for path in sorted(configs.glob("*.click"))]
    return sorted(found)


def image_id(files: list[tuple[str, Path]]) -> str:
    """The id of the image that holds exactly `files` on the current base."""
    here = Path(__file__).parent
    parts = [base_key().encode(), recipe.INITRD_INIT.encode(), recipe.ROOT_INIT.encode()]
    parts += [(here / name).read_bytes() for name in ("image.py", "cpio.py")]
    parts.append(f"{recipe.DISK_BYTES} {recipe.JOURNAL_MIB} {recipe.INODES}".encode())
    for name, path in files:
        parts += [name.encode(), path.read_bytes()]
    return _digest(*parts)


@contextlib.contextmanager
def _locked(images: Path) -> Iterator[None]:
    images.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (images / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _scratch(images: Path) -> Iterator[Path]:
    work = Path(tempfile.mkdtemp(prefix=".work-", dir=images))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _load(directory: Path) -> Image | None:
    try:
        manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return Image(directory.name, directory, manifest)


def find(images: Path = IMAGES) -> Image | None:
    """The image for the code and recipe as they are now, or None when it must be built first."""
    return _load(images / image_id(guest_files(Path(xiatb.__file__).parent)))


def _check_host() -> None:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or not BUSYBOX.exists():
        names = ", ".join(missing + ([] if BUSYBOX.exists() else [str(BUSYBOX)]))
        raise HostNotAbleError(f"cannot build a guest image without {names}", hint="run scripts/setup")
    if os.geteuid() != 0:
        raise HostNotAbleError("building a guest image needs root", hint="use sudo")


def build(progress: Progress, images: Path = IMAGES, *, force: bool = False) -> Image:
    """The image for the current code, built when it is not there (or `force`). Raises XiatbError."""
    files = guest_files(Path(xiatb.__file__).parent)
    wanted = images / image_id(files)
    if not force and (image := _load(wanted)) is not None:
        return image
    _check_host()
    with _locked(images):
        if not force and (image := _load(wanted)) is not None:
            return image
        base = _base(images, progress, force=False)
        progress(f"making image {wanted.name}")
        with _scratch(images) as work:
            fresh = work / "image"
            fresh.mkdir()
            _second_stage(base, fresh, work, files, wanted.name)
            if wanted.exists():
                wanted.rename(work / "replaced")
            fresh.rename(wanted)
        _prune(images, wanted.name, base.name)
    image = _load(wanted)
    if image is None:
        raise XiatbError(f"image {wanted.name} is not readable after its build")
    return image


def _base(images: Path, progress: Progress, *, force: bool) -> Path:
    base = images / f"base-{base_key()}"
    if (base / "base.json").exists() and not force:
        return base
    with _scratch(images) as work:
        fresh = work / "base"
        fresh.mkdir()
        facts = build_base(work, fresh, progress)
        (fresh / "base.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        if base.exists():
            base.rename(work / "replaced")
        fresh.rename(base)
    return base


def initrd(modules: Path) -> bytes:
    """The initramfs (uncompressed cpio): busybox, the modules in `modules` and the first process."""
    archive = cpio.Archive()
    for name in ("bin", "dev", "modules", "proc", "root", "sys"):
        archive.directory(name)
    archive.device("dev/console", 5, 1)
    archive.file("bin/busybox", BUSYBOX.read_bytes(), 0o755)
    for module in sorted(modules.iterdir()):
        archive.file(f"modules/{module.name}", module.read_bytes())
    archive.file("init", recipe.INITRD_INIT.encode(), 0o755)
    return archive.finish()


def _second_stage(base: Path, fresh: Path, work: Path, files: list[tuple[str, Path]], ident: str) -> None:
    started = time.monotonic()
    facts = json.loads((base / "base.json").read_text(encoding="utf-8"))
    root = work / "root"
    run(["cp", "-a", "--reflink=auto", str(base / "root"), str(root)], timeout=300)
    _install_code(root, files)
    raw = work / "root.raw"
    _filesystem(root, raw, ident)
    qcow2 = fresh / "root.qcow2"
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(qcow2)], timeout=300)
    shutil.copyfile(base / "vmlinuz", fresh / "vmlinuz")
    (fresh / "initrd").write_bytes(initrd(base / "modules"))
    manifest = {
        "id": ident,
        "base": base.name,
        "kernel": facts["kernel"],
        "packages": facts["packages"],
        "xiatb": xiatb.__version__,
        "files": len(files),
        "disk_bytes": recipe.DISK_BYTES,
        "allocated_bytes": qcow2.stat().st_blocks * 512,
        "seconds": round(time.monotonic() - started, 1),
    }
    (fresh / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _install_code(root: Path, files: list[tuple[str, Path]]) -> None:
    for name, source in files:
        target = root / GUEST_CODE / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    init = root / GUEST_CODE / "init"
    init.write_text(recipe.ROOT_INIT, encoding="utf-8")
    init.chmod(0o755)
    (root / "usr/lib/python3/dist-packages/xiatb.pth").write_text(f"/{GUEST_CODE}\n", encoding="utf-8")
    (root / "etc/hostname").write_text("xiatb-guest\n", encoding="utf-8")
    (root / "etc/fstab").write_text("/dev/vda / ext4 noatime 0 1\n", encoding="utf-8")
    compile_python(root, f"/{GUEST_CODE}/xiatb")


def _filesystem(root: Path, raw: Path, ident: str) -> None:
    """An ext4 with a small journal (data survives a cut), no reserved blocks, inode tables written now so
    that the guest's kernel has nothing to initialise later."""
    uuid = hashlib.md5(ident.encode(), usedforsecurity=False).hexdigest()
    argv = ["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-m", "0", "-N", str(recipe.INODES)]
    argv += ["-J", f"size={recipe.JOURNAL_MIB}", "-O", "^resize_inode", "-L", "xiatb-root"]
    argv += ["-U", f"{uuid[:8]}-{uuid[8:12]}-4{uuid[13:16]}-8{uuid[17:20]}-{uuid[20:]}"]
    argv += ["-E", "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,discard", "-d", str(root)]
    run([*argv, str(raw), f"{recipe.DISK_BYTES // 1024}k"], timeout=300)


def _in_use() -> set[str]:
    used = set()
    for record in LABS.glob("*/guests/*/guest.json"):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            used.add(str(json.loads(record.read_text(encoding="utf-8")).get("image_id")))
    return used


def _prune(images: Path, newest: str, base: str) -> None:
    """Removes images beyond the KEEP newest that no lab uses, other bases, scratch of a killed build."""
    used = _in_use() | {newest}
    finished = [path for path in images.iterdir() if (path / "manifest.json").exists()]
    finished.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    stale = [path for path in finished[KEEP:] if path.name not in used]
    stale += [path for path in images.glob("base-*") if path.name != base]
    stale += list(images.glob(".work-*"))
    for path in stale:
        shutil.rmtree(path, ignore_errors=True)
