"""The commands of the command line, one module each.

A module defines SUMMARY, add_arguments and run, and imports what it needs in run, so
that help is printed without torch.
"""
