"""Model families that describe themselves."""
