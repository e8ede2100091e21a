"""What every other room stands on: errors, files, parameters, signatures and the
artifacts' contracts.
"""
