"""A release: its folder, its signature, the Hub that it goes to, and its verification."""
