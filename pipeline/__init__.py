"""The seven stages of the pipeline, one module each, in the order in which dvc.yaml
runs them.
"""
