"""The crew: the coding agents at work in this machine (Claude Code, Codex, Gemini CLI, OpenCode).

Two things are called "agent". In code, *agent* is this program, the daemon; a coding agent is a
*member* of the crew. What people read says "coding agent" or the member's name, such as claude-1.
"""
