"""Servers that tests talk to over a real socket."""
