"""Run whatever a file holds.

loader          load: any file, folder or repository, as one kind of Model
detect          which format a file or folder is
hub_snapshot    one format of a repository on a Hub
open            open_runtime: an artifact of a known format
runtime         what all runtimes have in common
eager           building a model's own code around weights
eager_runtime   running it
torch_files     running TorchScript and .pt2
onnx_runtime    running ONNX, without torch
pth_model       running a .pth (deprecated)
"""
