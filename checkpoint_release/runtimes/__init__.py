"""Run whatever a file holds: one module a runtime, and the loader that finds the right
one.
"""
