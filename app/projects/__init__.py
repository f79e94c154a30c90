"""Projects and their instances as rows, and who may do what at each: shares, groups, delegates.

Its surprise: the level is asked of the rows each time, also whether the key, the delegate or the user who asks is
still good, so that whoever holds a connection open can ask again and get the answer of now.
"""
