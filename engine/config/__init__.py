"""From YAML to typed values, and messages that name file and line."""
