"""The model card: what is measured about a release, and what its author adds.

author_notes   what only the author can say, and what is still missing
inputs         the artifacts that a card describes, verified
training       training facts and metrics that the checkpoint holds
files          the files of the release, and how they were exported
parity         the parity figures as rows
front_matter   the metadata that the Hub reads
render         the card's text, from card.md.jinja
markdown       escaping for Markdown
hub_terms      licences and tasks that the Hub knows
"""
