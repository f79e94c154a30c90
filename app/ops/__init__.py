"""What operators look at: health, metrics, the description of the interface.

Its surprise: `/livez` asks nothing of the database, so that a slow disk never gets a machine killed.
"""
