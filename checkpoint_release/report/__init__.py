"""The report of a pipeline run: one HTML file that a reviewer opens offline.

contents        what it shows, read from the project's folder
stages          the pipeline: what ran here, what DVC had cached, what changed
history         the release before, from git
locked          dvc.lock
comparison      this release held against the one before
weights         the weights by group of tensors
training        curves of training
nodes           the ONNX graph by module, with its nodes' errors
node_errors     how these are computed
lines           panels of lines
errors          the proof by case, and along the longest dimension
page            the HTML
plots_library   what `dvc plots show` needs to draw offline
"""
