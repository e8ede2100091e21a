"""From what a checkpoint holds to the weights that its model computes with.

find            which of the mappings in the file is the state dict
prefixes        module. and _orig_mod. go, where every name has them
half_precision  half-precision weights are kept, widened or refused
lora            low-rank adapters are added to the weights that they adapt: their
                names, their config and their layers have modules of their own
model_weights   all of these, one after another
inspection      what a file holds, which tool wrote it, which model family it fits

Everything stays a record over the file's bytes until it is written. Nothing here
imports torch.
"""
