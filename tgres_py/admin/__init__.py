"""Operator verbs: each is one declaration, run inside a server (over HTTP) or on the store alone (by the CLI)."""
