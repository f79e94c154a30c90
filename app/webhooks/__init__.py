"""Webhooks: events that providers tell us of, each with its effect once, and events that we tell others of.

Its surprise: in both directions the event is a row in the transaction of its effect. What comes in is marked done
there and nowhere else, so a failed event is still to be done when it comes again; what goes out waits in the
outbox until a receiver has taken it.
"""
