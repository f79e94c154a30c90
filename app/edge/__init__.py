"""The machine room: SQLite, HTTP, time-outs and limits. It knows no domain.

What it needs of one (who is asking, which origins are listed) is handed in by `main`. Its surprise:
reads run on the event loop itself, because on a local file they are shorter than any hand-over.
"""
