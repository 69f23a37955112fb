"""The presets that ship with the package, as YAML files that state what differs from the defaults."""
