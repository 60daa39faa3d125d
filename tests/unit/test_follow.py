"""Following real files: every change is noticed once, however it is made."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agent.follow import Follower, Source
from agent.settings.files import listed

NOTICED = 30.0
"""Seconds: the computer may be busy. `make bench` measures how soon it is."""

QUIET = 3.0
"""Seconds in which a change that counts would have been noticed."""


class Followed:
    """A followed folder of `.toml` files, and its content as read at each change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.read: list[dict[str, str]] = []
        self._more = asyncio.Event()

    def source(self) -> Source:
        def files() -> list[str]:
            return listed(str(self.folder), ".toml") if self.folder.is_dir() else []

        async def on_change() -> None:
            self.read.append({os.path.basename(path): Path(path).read_text() for path in files()})
            self._more.set()

        return Source(lambda: [str(self.folder)], files, on_change)

    async def becomes(self, **content: str) -> None:
        """Wait until the folder was read with this content."""
        wanted = {f"{name}.toml": text for name, text in content.items()}
        async with asyncio.timeout(NOTICED):
            while not self.read or self.read[-1] != wanted:
                self._more.clear()
                await self._more.wait()

    async def stays(self) -> None:
        """Nothing is read for a while."""
        before = len(self.read)
        await asyncio.sleep(QUIET)
        assert len(self.read) == before, self.read[before:]


def follow(folder: Path, test: Callable[[Followed], Awaitable[None]]) -> Followed:
    """Run a test while the folder is followed."""

    async def run() -> Followed:
        followed = Followed(folder)
        following = asyncio.create_task(Follower([followed.source()]).run())
        await followed.becomes(**{p.stem: p.read_text() for p in folder.glob("[!.#]*.toml")})
        try:
            await test(followed)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        return followed

    return asyncio.run(run())


def replace(path: Path, text: str) -> None:
    """As editors do."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.rename(path)


def test_a_file_is_written_replaced_and_removed(tmp_path: Path) -> None:
    async def test(followed: Followed) -> None:
        (tmp_path / "a.toml").write_text("1")
        await followed.becomes(a="1")
        replace(tmp_path / "a.toml", "2")
        await followed.becomes(a="2")
        (tmp_path / "a.toml").unlink()
        await followed.becomes()

    follow(tmp_path, test)


def test_a_folder_is_made_after_the_start_removed_and_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "etc" / "services.d"

    async def test(followed: Followed) -> None:
        for text in ("1", "2"):
            folder.mkdir(parents=True)
            (folder / "a.toml").write_text(text)
            await followed.becomes(a=text)
            (folder / "a.toml").unlink()
            folder.rmdir()
            folder.parent.rmdir()
            await followed.becomes()

    follow(folder, test)


def test_a_folder_that_was_made_again_at_once_is_followed_on(tmp_path: Path) -> None:
    """Between two looks: the path is the same, the folder is not."""
    folder = tmp_path / "services.d"
    folder.mkdir()
    (folder / "a.toml").write_text("1")

    async def test(followed: Followed) -> None:
        (folder / "a.toml").unlink()
        folder.rmdir()
        folder.mkdir()
        await followed.becomes()
        await followed.stays()  # the events of the new folder are over
        (folder / "a.toml").write_text("2")
        await followed.becomes(a="2")

    follow(folder, test)


def test_links_and_hard_links_count(tmp_path: Path) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "followed"
    elsewhere.mkdir()
    folder.mkdir()
    (elsewhere / "a").write_text("1")

    async def test(followed: Followed) -> None:
        (folder / "soft.toml").symlink_to(elsewhere / "a")
        await followed.becomes(soft="1")
        (folder / "hard.toml").hardlink_to(elsewhere / "a")
        await followed.becomes(soft="1", hard="1")
        replace(elsewhere / "a", "2")
        await followed.becomes(soft="2", hard="1")

    follow(folder, test)


def test_the_swap_of_a_mounted_secret(tmp_path: Path) -> None:
    """Kubernetes: each file is a link through `..data`, which is replaced in one step."""

    def version(text: str) -> None:
        (tmp_path / f"..{text}").mkdir()
        (tmp_path / f"..{text}" / "a.toml").write_text(text)
        (tmp_path / "..new").symlink_to(f"..{text}")
        (tmp_path / "..new").rename(tmp_path / "..data")

    version("1")
    (tmp_path / "a.toml").symlink_to("..data/a.toml")

    async def test(followed: Followed) -> None:
        version("2")
        await followed.becomes(a="2")

    follow(tmp_path, test)


def test_a_folder_that_is_a_link_is_led_elsewhere(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.toml").write_text(name)
    (tmp_path / "current").symlink_to("one")

    async def test(followed: Followed) -> None:
        (tmp_path / "next").symlink_to("two")
        (tmp_path / "next").rename(tmp_path / "current")
        await followed.becomes(a="two")
        replace(tmp_path / "two" / "a.toml", "three")
        await followed.becomes(a="three")

    follow(tmp_path / "current", test)


@pytest.mark.parametrize("name", [".#a.toml", "#a.toml#", "a.toml~", "._a.toml", ".a.toml.swp"])
def test_what_editors_and_macos_leave_beside_a_file_is_nothing(tmp_path: Path, name: str) -> None:
    async def test(followed: Followed) -> None:
        (tmp_path / name).symlink_to("nobody@nowhere:1")
        await followed.stays()
        (tmp_path / name).unlink()
        await followed.stays()

    follow(tmp_path, test)


def test_a_burst_is_read_a_few_times_only(tmp_path: Path) -> None:
    async def test(followed: Followed) -> None:
        await followed.stays()
        for number in range(200):
            (tmp_path / f"f{number % 10}.toml").write_text(str(number))
        await followed.becomes(**{f"f{n}": str(190 + n) for n in range(10)})

    assert len(follow(tmp_path, test).read) <= 4


def test_a_source_that_fails_holds_up_no_other_and_is_tried_again(tmp_path: Path) -> None:
    calls: list[str] = []

    async def broken() -> None:
        calls.append("broken")
        raise OSError("read-only")

    async def sound() -> None:
        calls.append("sound")

    def source(on_change: Callable[[], Awaitable[None]]) -> Source:
        return Source(lambda: [str(tmp_path)], list, on_change)

    async def run() -> None:
        follower = Follower([source(broken), source(sound)])
        for _ in range(2):
            with pytest.raises(OSError, match="read-only"):
                await follower.run()

    asyncio.run(run())
    assert calls == ["broken", "sound", "broken"]
