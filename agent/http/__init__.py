"""HTTP/1.1 in the machine: a small server and a small client around h11, which knows the protocol.

The agent answers a handful of requests, mostly of its own commands, and asks two kinds. aiohttp did
both at the price of a fifth of the agent's memory (9 of 47 MB) and of its start; uvicorn wants 3 MB
and has no client.
"""
