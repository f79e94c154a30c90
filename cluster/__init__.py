"""The cluster: several machines on one computer, over LiteFS or a stand-in for it.

`scripts/cluster` shows it, the tests and the bench measure it. The app knows nothing of it: each machine is
`litehouse serve` with the settings that a machine has in production.
"""
