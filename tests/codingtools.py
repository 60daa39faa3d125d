"""The real Codex, Gemini CLI and OpenCode: how they are installed, and started for a stand-in."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.coding import TOOLS, Desk
from tests.messages import Model
from tests.support import Box, ready

CONTAINER = Path(__file__).parents[1] / "container"
VENDOR = TOOLS / "codex-linux-x64" / "vendor" / "x86_64-unknown-linux-musl"

# As in the image: in folders that the account cannot change.
INSTALL = "; ".join(
    f"mkdir -p {target} && cp {CONTAINER}/{source}/* {target}/ && chmod 755 {target}"
    for source, target in (
        ("codex", "/etc/codex"),
        ("gemini", "/etc/gemini-cli"),
        ("opencode", "/etc/opencode"),
    )
)


OFFLINE = {
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1",
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
}
"""Variables that keep all traffic on the loopback."""


PLUGINS = (".config/opencode", ".opencode")
"""Where OpenCode installs the types of plugins before its window shows anything, whether there are
any or not: found there, they are not asked of a registry that is not there."""


@dataclass(frozen=True)
class Tool:
    """A coding tool: how it is started and used."""

    name: str
    command: str
    prompt: str
    """The text of its window when it is ready for a prompt."""
    asks: str
    """The text of its window when it asks for a permission."""
    deny: str
    files: dict[str, str]
    environ: dict[str, str] = field(default_factory=dict)


def tool(name: str, desk: Desk) -> Tool:
    """The tool, configured to use the stand-in."""
    url, folder = desk.model.url, f"{desk.home}/api"
    if name == "codex":
        config = (
            'model = "stand-in"\nmodel_provider = "stub"\ncheck_for_update_on_startup = false\n'
            f'[projects."{folder}"]\ntrust_level = "trusted"\n'
            f'[model_providers.stub]\nname = "stub"\nbase_url = "{url}/v1"\n'
            'wire_api = "responses"\nenv_key = "OPENAI_API_KEY"\n'
        )
        return Tool(
            name,
            f"{VENDOR}/bin/codex -a on-request -s workspace-write",
            "stand-in",
            "Would you like to run",
            "Escape",
            {".codex/config.toml": config},
            {"OPENAI_API_KEY": "k"},
        )
    if name == "gemini":
        settings = {
            "security": {"auth": {"selectedType": "gemini-api-key"}},
            "general": {"disableAutoUpdate": True},
        }
        return Tool(
            name,
            f"node {TOOLS}/@google/gemini-cli/bundle/gemini.js --skip-trust -m gemini-2.5-flash",
            "Type your message",
            "Allow",
            "Escape",
            {".gemini/settings.json": json.dumps(settings)},
            {"GEMINI_API_KEY": "k", "GOOGLE_GEMINI_BASE_URL": url},
        )
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "stub",
        "options": {"baseURL": f"{url}/v1", "apiKey": "k"},
        "models": {"m": {"name": "m"}},
    }
    types = {"dependencies": {"@opencode-ai/plugin": "1.18.33"}}
    installed = {
        "package.json": json.dumps(types),
        "package-lock.json": json.dumps({"packages": {"": types}}),
        "node_modules/none": "",
    }
    settings = {
        "model": "stub/m",
        "provider": {"stub": provider},
        "permission": {"bash": "ask"},
        "autoupdate": False,
    }
    return Tool(
        name,
        f"{TOOLS}/opencode-linux-x64/bin/opencode",
        "Ask anything",
        "Permission required",
        "Escape",
        {
            ".config/opencode/opencode.json": json.dumps(settings),
            # Its spinner takes half a core.
            ".local/state/opencode/kv.json": json.dumps({"animations_enabled": False}),
            **{f"{each}/{path}": text for each in PLUGINS for path, text in installed.items()},
        },
    )


def desk_with_tools(box: Box, told: Model, environ: Mapping[str, str] = {}) -> Desk:
    """Boot a machine with the tools' hooks at the image's paths and a folder `api`."""
    desk = Desk(ready(box.boot(environ, before=INSTALL)), told)
    desk.sh("mkdir -p tmp api")
    return desk


def sit(desk: Desk, name: str) -> Tool:
    """Start the tool in a window, ready for a prompt."""
    made = tool(name, desk)
    prepare(desk, made)
    desk.open("api", "api", made.command, {**OFFLINE, **made.environ})
    desk.shows("api", made.prompt)
    return made


def prepare(desk: Desk, made: Tool) -> None:
    """Put the tool's files into the home."""
    for path, content in made.files.items():
        desk.sh(f"mkdir -p {Path(path).parent}")
        desk.put(path, content)
