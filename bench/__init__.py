"""The bench: how fast litehouse is, as ratios against simpler servers in the same run.

Absolute figures say more of the machine than of the code, so each measured round stands beside a round of
its baseline, and what is compared is always the two of one moment (docs/bench.md).
"""

# Before aiosqlite, which would load another SQLite.
import app as app
