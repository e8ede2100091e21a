"""A first draft of a model's signature, by running the model.

guesses    what inputs may look like, from the model's layers
trials     runs of the model on a guess
first      the first guess that runs
relations  sizes that inputs share, and sizes that follow from others
sizes      bounds and multiples of each dimension
ranges     floats that have to be in a range
optional   inputs that forward can do without
outputs    names, dtypes and sizes of what comes back
draft      all of it in order
text       the draft as params.yaml takes it
"""
