"""HTTP/1.1 in the machine: a small server and a small client around h11, which parses the protocol.

The agent answers few requests, mostly of its own commands, and sends two kinds. aiohttp did both,
but took a fifth of the agent's memory (9 of 47 MB) and of its start; uvicorn takes 3 MB and has no
client.
"""
