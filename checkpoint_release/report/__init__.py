"""The report of a pipeline run: one HTML file that a reviewer opens offline.

contents        what it shows, read from the project's folder
stages          the pipeline: what ran here, what DVC had cached, what changed
history         the release before, from git
locked          dvc.lock
comparison      this release held against the one before
weights         the weights by group of tensors
training        curves of training
nodes           errors of the ONNX graph's nodes, and what was computed of them before
node_errors     how they are computed
modules         the nodes by module
lines           panels of lines
errors          the proof by case, and along the longest dimension
page            the HTML
plots_library   what `dvc plots show` needs to draw offline
"""
