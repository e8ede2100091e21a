"""A release: assembled from artifacts, described, signed, published and verified."""
