"""Which dimensions share units: terms, the pass that finds them, the axes that people can name."""
