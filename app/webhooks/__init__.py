"""Webhooks: who signed an event, and the log that makes each one happen once.

Its surprise: an event's id is marked done in the transaction of its effect, and nowhere else, so a failed
event is still to be done when it comes again.
"""
