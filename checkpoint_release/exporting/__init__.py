"""What all exporters share: tracing, the shape check, path leaks and config.json."""
