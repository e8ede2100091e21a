"""How fast each format runs on this machine, and how much memory it takes.

measure    the whole of it
settings   the sizes of the inputs
ways       what is run: eager torch, torch.compile, every format and variant
worker     a process that has opened one of them
rounds     the ways take turns, and their calls are timed
memory     what memory a process takes
machine    what is measured on
summary    medians, 95th percentiles and multiples of eager's time
table      the figures on a terminal
compiled   torch.compile
"""
