"""A pipeline in a project of one's own.

shipped    which of this project's files the wheel carries
template   what they become in another project
params     params.yaml, edited without losing its comments
place      the git and DVC projects around a folder, and where model code lies
record     which files were written, and which were edited since
update     what a later version would change in a project
one_shot   all stages, once, in a folder that is gone afterwards
"""
