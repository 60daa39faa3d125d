"""The images, built for real by buildah on a base that debootstrap creates.

The base stands in for the dev-containers image, whose registry tests may be unable to reach: a
Debian with Node, npm, Python, and the account `node`, which may become root.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.claims import alone

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"

_INCLUDE = "ca-certificates,curl,nodejs,openssh-client,python3,sudo"


@dataclass(frozen=True)
class Image:
    """A built target, and its configuration."""

    name: str
    entrypoint: tuple[str, ...]
    environ: Mapping[str, str]
    stop_signal: str
    user: str
    health: tuple[str, ...]

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        """Its root file system, which must not be written."""
        container = _buildah("from", "--pull-never", self.name)
        try:
            yield Path(_buildah("mount", container))
        finally:
            _buildah("rm", container)


def build(suite: str, target: str) -> Image:
    """Build a target of the Dockerfile on a Debian of this suite."""
    with alone(CACHE / f"{suite}.lock"):
        return _build(suite, target)


def _build(suite: str, target: str) -> Image:
    base = _base(suite)
    name = f"localhost/swarm-{target}:{suite}"
    words = ["--isolation", "chroot", "--format", "docker", "--layers", "--target", target]
    built = [*words, "--build-arg", f"BASE_IMAGE={base}", "-f", "container/Dockerfile", "-t", name]
    _buildah("build", "--pull-never", *built, str(ROOT))
    found = json.loads(_buildah("inspect", "--type", "image", name))
    config = found["Docker"]["config"]
    return Image(
        name=name,
        entrypoint=tuple(config.get("Entrypoint") or ()),
        environ=dict(entry.split("=", 1) for entry in config["Env"]),
        stop_signal=config.get("StopSignal", ""),
        user=config.get("User", ""),
        health=tuple(config.get("Healthcheck", {}).get("Test", ())),
    )


def _base(suite: str) -> str:
    name = f"localhost/swarm-base:{suite}"
    known = _buildah("images", "--format", "{{.Name}}:{{.Tag}}").splitlines()
    if name in known:
        return name
    folder = CACHE / f"base-{suite}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    command = ["debootstrap", "--variant=minbase", f"--include={_INCLUDE}", suite, str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    _finish_base(folder)
    # As an archive: a folder would be added with root as the owner of everything.
    archive = folder.with_suffix(".tar")
    subprocess.run(["tar", "-C", str(folder), "-cf", str(archive), "."], check=True)
    shutil.rmtree(folder)
    container = _buildah("from", "scratch")
    _buildah("add", container, str(archive), "/")
    archive.unlink()
    for variable in ("NODE_EXTRA_CA_CERTS", "PIP_CERT", "SSL_CERT_FILE"):
        _buildah("config", "--env", f"{variable}={CERTIFICATES}", container)
    _buildah("commit", container, name)
    _buildah("rm", container)
    return name


def _finish_base(folder: Path) -> None:
    # This computer's npm: Debian's would add four hundred packages.
    modules = folder / "usr/local/lib/node_modules"
    modules.mkdir(parents=True)
    npm = Path(shutil.which("npm") or "/usr/bin/npm").resolve().parents[1]
    shutil.copytree(npm, modules / "npm", symlinks=True)
    for program in ("npm", "npx"):
        link = folder / "usr/local/bin" / program
        link.symlink_to(f"../lib/node_modules/npm/bin/{program}-cli.js")
    # This computer's trusted certificates, in case a proxy is between it and the registries.
    shutil.copy(CERTIFICATES, str(folder) + CERTIFICATES)
    subprocess.run(
        ["chroot", str(folder), "useradd", "-m", "-u", "1000", "-s", "/bin/bash", "node"],
        check=True,
    )
    (folder / "etc/sudoers.d/node").write_text("node ALL=(root) NOPASSWD:ALL\n")


def _buildah(*words: str) -> str:
    storage = ["--root", str(CACHE / "images"), "--runroot", "/run/swarm-images"]
    command = ["buildah", *storage, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout.strip()
