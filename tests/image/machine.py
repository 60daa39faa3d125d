"""A machine whose root file system is an image, reset at every boot as the platform does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.machine import LocalMachine
from tests.image.images import Image

VOLUME = "/workspace"

_ENTER = Path(__file__).with_name("enter.sh")


class ImageMachine(LocalMachine):
    """Runs the image's entrypoint as PID 1; only the volume survives a boot."""

    def __init__(self, folder: Path, image: Image, root: Path, network: str = "") -> None:
        super().__init__(folder)
        self.user = "node"
        self.program = image.entrypoint[0]
        self._image = image
        self._root = root
        self._network = network

    def start(self, environ: Mapping[str, str], **how: Any) -> None:
        """Boot with the image's environment below `environ`."""
        super().start({**self._image.environ, **environ}, **how)

    def _volume_inside(self) -> str:
        return VOLUME

    def _enter(self) -> list[str]:
        network = ["ip", "netns", "exec", self._network] if self._network else []
        namespaces = ["--pid", "--fork", "--mount", "--uts", "--ipc", "--kill-child"]
        return [*network, "unshare", *namespaces, str(_ENTER), str(self._root), str(self.folder)]

    def _prepare(self) -> None:
        self.volume.mkdir(parents=True, exist_ok=True)
