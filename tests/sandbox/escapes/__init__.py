"""The escape suite: programs that try to get out, run against every backend and tier.

``python -m sandbox.escapes`` (in ``tests/``) runs them all and writes the table in the docs.
"""
