"""Whether every format computes what the checkpoint computes: cases, workers, judge and
report.
"""
