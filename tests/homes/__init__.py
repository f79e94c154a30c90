"""Homes over real machines: who has an instance, and what becomes of it when that machine goes."""
