"""Metering: a ledger that is only ever added to, and the quota that follows from it.

Its surprise: the ledger has one index, for the identity of events. Quota reads a counter, history reads
roll-ups, and export follows each row's `previous_id`, so that no read's index is paid by every insert.
"""
