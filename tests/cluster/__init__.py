"""Machines of a cluster on loopback, over the real LiteFS and over a stand-in for it."""
