"""Trained models behind HTTP: `detseg serve`, a service with dynamic batching and a page to try it.

Starlette and uvicorn carry it: two small packages of pure Python, which import no torch. LitServe brings FastAPI and
processes of its own for what is one thread here, and FastAPI checks bodies of JSON, where ours are images.
"""
