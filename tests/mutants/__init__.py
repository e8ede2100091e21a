"""Mutation testing: what do the fast tests notice?

    make mutants MUTANTS="checkpoint_release/parity/*.py --tests tests/parity"

A mutant is a module with one small change by an operator of mutmut's: a number changed,
an argument dropped, a comparison turned round, a message altered. A random sample is
tried, each against the fast tests that run the changed line. What no test notices is
printed.

It works in copies of the checkout. The tests run once with coverage's contexts, which
say what runs which line; then each mutant is written into a copy, and its tests run in
a process that is forked off one that has imported the large libraries.
"""
