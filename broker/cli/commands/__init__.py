"""The commands, one module per noun; imported only when used."""
