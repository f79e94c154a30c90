"""Accounts: what a user and Clerk may see and change of a user's row, and the keys a user makes.

Its surprise: Clerk's events arrive twice, late and out of order, so every object of Clerk's is compared with
itself alone by its `updated_at`, and a deleted user is remembered as a hash.
"""
