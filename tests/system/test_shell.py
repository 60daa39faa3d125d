"""The login shell, tested with the programs that people use there."""

import os
import pty
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.claims import free_port
from tests.conftest import BoxMaker
from tests.services import Services
from tests.support import Box, Screen, until
from tests.system.test_gate import proxy_command
from tests.system.test_init import environ_for

pytestmark = pytest.mark.root

PROXIED = {"SWARM_PROXY_PROTOCOL": "required", "SWARM_PROXY_NETWORKS": "127.0.0.0/8"}
CLIENT = "203.0.113.7"

SAY_GREEN = r"printf 'gr\303\274n\n'"


@pytest.mark.parametrize("sent", ["", "LANG=xx_YY.UTF-8", "LC_CTYPE=UTF-8"])
def test_letters_are_shown_in_tmux_whatever_the_client_sends(box: Box, sent: str) -> None:
    """Macs and clients in other countries send locales that the machine lacks."""
    options = [f"-oSetEnv={sent}"] if sent else []
    assert box.ssh("locale charmap", options=options).stdout == "UTF-8\n"
    script = (
        "export TMUX_TMPDIR=$XDG_RUNTIME_DIR; "
        f'tmux -f /dev/null new-session -d -x 40 -y 5 "{SAY_GREEN}; sleep 100"; '
        "for i in $(seq 100); do tmux capture-pane -p | grep -q gr && break; sleep 0.1; done; "
        "tmux list-clients; tmux capture-pane -p | head -1; tmux kill-server"
    )
    assert "gr\u00fcn" in box.ssh(script, options=options).stdout


def test_the_images_own_environment_reaches_sessions_and_services_and_secrets_do_not(
    services: Services,
) -> None:
    image = {"MY_TOOL": "/opt/my tool", "DATABASE_PASSWORD": "changeme"}
    started = {
        "DISABLE_AUTOUPDATER": "1",
        "EDITOR": "vim",
        "LANG": "de_DE.UTF-8",
        "HTTPS_PROXY": "http://proxy:3128",
    }
    secret = {"DATABASE_PASSWORD": "hunter2", "OTHER_SECRET": "hunter2"}
    built = services.box.folder / "image-env"
    built.parent.mkdir(parents=True)
    built.write_text("".join(f"{name}={value}\0" for name, value in image.items()))
    services.boot(
        '[service.shows]\ncommand = ["env"]\noneshot = true\n',
        image | started | secret,
        before=f"mkdir -p /etc/swarm && cp {built} /etc/swarm/image-env",
    )
    seen = box_env(services.box)
    services.becomes("shows", "done")
    said = services.box.agent("logs", "shows").stdout
    for name, value in (started | {"MY_TOOL": image["MY_TOOL"]}).items():
        assert seen[name] == value
        assert f" {name}={value}\n" in said
    assert "hunter2" not in str(seen) + said


def box_env(box: Box) -> dict[str, str]:
    out = box.ssh("env -0").stdout
    return dict(word.split("=", 1) for word in out.split("\0") if word)


@pytest.mark.parametrize(
    "command", ["printenv PATH", "bash -lc 'printenv PATH'", "sh -c 'printenv PATH'"]
)
def test_what_people_install_for_themselves_is_found_in_every_shell(box: Box, command: str) -> None:
    folders = box.ssh(command).stdout.strip().split(":")
    own = f"/home/{box.user}/.local/bin"
    assert own in folders
    assert folders.index(own) < folders.index("/usr/bin")
    assert len(folders) == len(set(folders))


def test_the_folder_for_sockets_and_the_folder_for_keys_are_the_users_own(box: Box) -> None:
    said = box.ssh('stat -c "%a %U" "$XDG_RUNTIME_DIR" ~/.ssh/').stdout
    assert said == f"700 {box.user}\n700 {box.user}\n"


def test_who_w_and_last_show_the_client_and_not_the_proxy(make_box: BoxMaker) -> None:
    box = make_box().start(PROXIED)
    box.event("boot.listening")
    command = ["ssh", "-tt", *box.ssh_options(), proxy_command(box, CLIENT), f"{box.user}@machine"]
    master, slave = pty.openpty()
    login = subprocess.Popen([*command, "sh"], stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    screen = Screen(master)
    try:
        # The agent corrects sshd's entry a moment after sshd has written it.
        screen.type(f"until who | grep -q {CLIENT}; do sleep 0.1; done; echo no''w\n")
        screen.expect("now")
        before = len(screen.seen)
        screen.type("who; w; last -w; echo en''d\n")
        screen.expect("end")
        shown = screen.seen[before:]
        lines = [line for line in shown.splitlines() if f"{box.user} " in line and "pts/" in line]
        assert len(lines) == 3, shown
        assert all(CLIENT in line for line in lines), shown
        assert "127.0.0.1" not in shown
        screen.type("exit\n")
        login.wait(30)
    finally:
        login.kill()
        login.wait()
        os.close(master)
    box.event("ssh.session.closed")
    enter = ["nsenter", "-t", str(box.machine.init), "-m", "-p"]

    def gone() -> bool:
        said = subprocess.run([*enter, "who"], capture_output=True, text=True, check=True).stdout
        return box.user not in said

    until(gone, "nobody is logged in")

    def logged_out() -> bool:
        said = subprocess.run([*enter, "last", "-w"], capture_output=True, text=True, check=True)
        [line] = [line for line in said.stdout.splitlines() if line.startswith(box.user)]
        return CLIENT in line and "still" not in line

    until(logged_out, "the end in the history")


def test_a_socket_that_was_left_behind_is_forwarded_again(box: Box, tmp_path: Path) -> None:
    """gpg-agent forwarding: sshd leaves the socket when the first connection is lost."""
    forward = ["-R", f"/run/user/1000/S.gpg-agent:{tmp_path}/agent", "-oExitOnForwardFailure=yes"]
    for _ in range(2):
        assert (
            box.ssh("test -S $XDG_RUNTIME_DIR/S.gpg-agent && echo there", options=forward).stdout
            == "there\n"
        )


def test_mosh_finds_a_server_letters_and_a_way(box: Box) -> None:
    """It refuses to start without UTF-8; its packets do not go through SSH."""
    ssh = shlex.join(["ssh", *box.ssh_options()])
    ports = f"--port={free_port()}"
    command = ["mosh", f"--ssh={ssh}", "--experimental-remote-ip=local", ports]
    master, slave = pty.openpty()
    environ = {
        "PATH": os.environ["PATH"],
        "TERM": "xterm",
        "LANG": "C.UTF-8",
        "HOME": "/nonexistent",
    }
    screen = Screen(master)
    screen.resize(24, 80)
    mosh = subprocess.Popen(
        [*command, f"{box.user}@127.0.0.1", "sh"],
        env=environ, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    try:
        screen.type(f"{SAY_GREEN}; echo $((40 + 2))\n")
        screen.expect("42")
        assert "gr\u00fcn" in screen.seen
        # The login that started it is over.
        until(lambda: box.events("ssh.session.closed"), "the end of the login by SSH")
        screen.type("echo $((50 + 2))\n")
        screen.expect("52")
        screen.type("exit\n")
        assert mosh.wait(30) == 0
    finally:
        mosh.kill()
        mosh.wait()
        os.close(master)


def test_x11_is_off_unless_it_is_set(make_box: BoxMaker) -> None:
    for environ, expected in (({}, ""), ({"SWARM_X11_FORWARDING": "on"}, "localhost:")):
        box = make_box().boot(environ)
        display = {"PATH": os.environ["PATH"], "DISPLAY": "127.0.0.1:7", "HOME": "/nonexistent"}
        shown = box.ssh("echo $DISPLAY", options=["-Y"], env=display).stdout.strip()
        assert shown.startswith(expected)
        assert bool(shown) == bool(expected)


@pytest.mark.parametrize("login", ["john.doe", "Ann_B", "1e2user", "ann@corp", r"CORP\ann"])
def test_an_account_that_is_found_by_its_uid_works_when_it_is_named(
    make_box: BoxMaker, login: str
) -> None:
    box = make_box(login=login).boot({"SWARM_USER": login})
    assert box.ssh("id -un").stdout == f"{login}\n"
    assert box.stop() == 0
    box.boot({"SWARM_USER": ""})
    assert box.ssh("id -un").stdout == f"{login}\n"


def test_a_script_without_an_interpreter_runs_with_sh(make_box: BoxMaker, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('echo "ran with $0 $1"\nexit 7\n')
    script.chmod(0o755)
    box = make_box(namespaces=False)
    box.start(environ_for(False), str(script), "words")
    assert box.machine.wait(30) == 7
    assert f"ran with {script} words" in box.log_path.read_text()


def test_a_program_of_another_machine_is_no_script(make_box: BoxMaker, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fEL\x00\x01\x02")
    program.chmod(0o755)
    box = make_box(namespaces=False)
    box.start(environ_for(False), str(program))
    assert box.machine.wait(30) == 126


def test_ctrl_z_does_not_leave_the_terminal_stuck(make_box: BoxMaker) -> None:
    box = make_box(namespaces=False)
    master, slave = pty.openpty()
    script = "echo up; while read -r line; do echo got $line; done"
    box.start(
        environ_for(False), "sh", "-c", script, stdin=slave, stdout=slave, stderr=slave,
        prefix=["setsid", "--ctty", "--wait"],
    )  # fmt: skip
    os.close(slave)
    screen = Screen(master)
    screen.expect("up")
    screen.type("\x1a")
    screen.type("still here\n")
    screen.expect("got still here")
    screen.type("\x04")
    assert box.machine.wait(30) == 0
    os.close(master)
