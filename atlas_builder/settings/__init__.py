"""What settings may be, before they are a configuration: plain YAML, and text that can be published."""
