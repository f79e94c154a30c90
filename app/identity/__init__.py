"""Who asks: Clerk's tokens, API keys, operators, and the users behind them.

Its surprise: a refusal's exact words depend on the family of routes, because shipped clients compare them;
each family is a `Door`.
"""
