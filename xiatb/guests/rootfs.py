"""First stage of the guest image: a trimmed Debian tree and the kernel, from packages.

Result of `build_base` is a directory with `root/` (the tree, Python byte-compiled), `vmlinuz` and
`modules/` (flat, with `order`). Needs root. Nothing is installed on this machine.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from xiatb.errors import HostNotAbleError, XiatbError
from xiatb.guests import recipe
from xiatb.guests.aptsources import host_sources, proxy_options

Progress = Callable[[str], None]

MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"
"""mmdebstrap's own hook: a merged /usr from the start, so that usrmerge and with it all of perl stay out."""

COMPILE = (
    "/usr/bin/python3",
    "-S",
    "-E",
    "-m",
    "compileall",
    "-q",
    "--invalidation-mode",
    "unchecked-hash",
)


def run(argv: Sequence[str], *, timeout: float, cwd: Path | None = None) -> str:
    """Runs a command of the image build; its standard output. Raises XiatbError with its last words."""
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            cwd=cwd,
        )
    except FileNotFoundError as error:
        raise HostNotAbleError(f"{argv[0]}: no such program", hint="run scripts/setup") from error
    except subprocess.TimeoutExpired as error:
        raise XiatbError(f"{argv[0]}: not done after {timeout:g} s") from error
    if done.returncode:
        words = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise XiatbError(f"{argv[0]} failed with {done.returncode}: {' / '.join(words[-4:])}")
    return done.stdout


def mmdebstrap_argv(target: Path, sources: Path, apt_options: Sequence[str]) -> list[str]:
    """The command that makes the tree at `target` from the one-line entries in `sources`."""
    argv = ["mmdebstrap", "--quiet", "--mode=root", "--variant=essential", "--format=directory"]
    argv.append(f"--hook-dir={MERGED_USR}")
    argv.append("--include=" + ",".join(recipe.PACKAGES))
    argv += [
        f"--aptopt={option}" for option in ('APT::Install-Recommends "false"', 'Acquire::Languages "none"')
    ]
    argv += [f"--aptopt={option}" for option in apt_options]
    argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.DPKG_EXCLUDES]
    argv += ["--dpkgopt=force-unsafe-io", "", str(target), str(sources)]
    return argv


def _debootstrap(work: Path) -> Path:
    entries = host_sources(recipe.SUITE)
    if not entries:
        raise HostNotAbleError(
            f"no package archive for {recipe.SUITE} in /etc/apt",
            hint=f"guests are Debian {recipe.SUITE}: add that suite to /etc/apt/sources.list.d and run again",
        )
    sources = work / "sources.list"
    sources.write_text("\n".join(entries) + "\n", encoding="utf-8")
    options = proxy_options(run(["apt-config", "dump"], timeout=30))
    target = work / "root"
    run(mmdebstrap_argv(target, sources, options), timeout=900, cwd=work)
    return target


def kernel_package(depends_output: str) -> str:
    """The versioned kernel package in the output of `apt-cache depends META`; raises HostNotAbleError."""
    for line in depends_output.splitlines():
        word = line.strip().removeprefix("|")
        if word.startswith("Depends: linux-image-"):
            return word.removeprefix("Depends: ").split()[0]
    raise HostNotAbleError(
        f"this machine's package lists have no {recipe.KERNEL_PACKAGE}",
        hint="run apt-get update, then try again",
    )


def _kernel(work: Path, target: Path) -> str:
    """Fetches and unpacks the guest kernel; leaves vmlinuz and modules/ in `target`, gives its version."""
    package = kernel_package(run(["apt-cache", "depends", recipe.KERNEL_PACKAGE], timeout=60))
    download = work / "kernel"
    download.mkdir()
    run(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package], timeout=600, cwd=download)
    (archive,) = download.glob("*.deb")
    tree = download / "tree"
    run(["dpkg-deb", "-x", str(archive), str(tree)], timeout=120)
    (image,) = (tree / "boot").glob("vmlinuz-*")
    shutil.copyfile(image, target / "vmlinuz")
    version = image.name.removeprefix("vmlinuz-")
    modules = target / "modules"
    modules.mkdir()
    for module in recipe.KERNEL_MODULES:
        source = tree / "lib/modules" / version / "kernel" / module
        shutil.copyfile(source, modules / source.name)
    (modules / "order").write_text(
        "".join(Path(m).name + "\n" for m in recipe.KERNEL_MODULES), encoding="ascii"
    )
    return version


def _trim(root: Path) -> None:
    for pattern in recipe.TRIM:
        for path in list(root.glob(pattern)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def compile_python(root: Path, *paths: str) -> None:
    """Byte-compiles `paths` (absolute inside the tree) with the guest's own Python."""
    run(["chroot", str(root), *COMPILE, *paths], timeout=300)


def build_base(work: Path, target: Path, progress: Progress) -> dict[str, str]:
    """Fills the existing, empty directory `target`, with `work` for what is temporary.

    Gives {"kernel": version, "packages": "name version, ..."} for the manifest.
    """
    with ThreadPoolExecutor(2) as pool:
        progress("fetching the guest kernel and Debian packages")
        kernel = pool.submit(_kernel, work, target)
        tree = pool.submit(_debootstrap, work)
        version, root = kernel.result(), tree.result()
    packages = run(
        ["dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W", "-f", "${Package} ${Version}, "], timeout=60
    )
    progress("trimming the tree and compiling its Python")
    _trim(root)
    compile_python(root, "/usr/lib/python3.11", "/usr/lib/python3/dist-packages")
    root.rename(target / "root")
    return {"kernel": version, "packages": packages.rstrip(", ")}
