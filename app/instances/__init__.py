"""The live side: one hub owns one instance, its entries, its connections and its file.

Its surprise: clients send every key again whenever anything changes. So a `set` is compared in a reconciled
form (`attributes.py`), and what changes nothing is neither written nor told to anybody.
"""
