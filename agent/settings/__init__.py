"""Typed settings: environment over an optional TOML file over defaults."""

from agent.settings.load import Loaded, Problem, SettingsError, load
from agent.settings.model import Settings

__all__ = ["Loaded", "Problem", "Settings", "SettingsError", "load"]
